// SPDX-License-Identifier: Apache-2.0
// OpenAI's client for Node: prints what it got of the server at argv[2] as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "[greet]" }];

const whole = await client.chat.completions.create({ model: "tiny", messages });
let streamed = "";
for await (const event of await client.chat.completions.create({ model: "tiny", messages, stream: true })) {
  streamed += event.choices[0]?.delta?.content ?? "";
}
const responded = await client.responses.create({ model: "tiny", input: "[greet]" });
const events = [];
for await (const event of await client.responses.create({ model: "tiny", input: "[greet]", stream: true })) {
  events.push(event.type);
}
const vectors = await client.embeddings.create({ model: "tiny", input: ["a", "b"] });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
let refused = null;
try {
  await client.chat.completions.create({ model: "none", messages });
} catch (error) {
  refused = [error.constructor.name, error.status, error.param];
}
const result = {
  whole: whole.choices[0].message.content, finish: whole.choices[0].finish_reason, streamed,
  responded: responded.output_text, first: events[0], last: events.at(-1),
  sizes: vectors.data.map((each) => each.embedding.length), models, refused,
};
console.log(JSON.stringify(result));

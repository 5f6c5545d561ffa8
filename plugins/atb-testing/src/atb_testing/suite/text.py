# SPDX-License-Identifier: Apache-2.0
"""Tests of a family's chat template."""

from __future__ import annotations

import pytest

from atb_core.errors import RequestError, TokenizerError
from atb_testing.capabilities import Capability
from atb_testing.chats import CHATS, VARIABLES
from atb_testing.claims import needs
from atb_testing.lab import Lab


class TextTests:
    """Tests the prompt that a family makes of a conversation."""

    @needs(Capability.CHAT_TEMPLATE)
    def test_the_chat_template_renders_as_transformers_does(self, atb_lab: Lab) -> None:
        """Compares our renderer with transformers', refusals included."""
        renderers = atb_lab.renderers
        rendered = 0
        for name, chat in CHATS.items():
            for kind, variables in VARIABLES.items():
                try:
                    expected = renderers.transformers(chat, **variables)
                # A template may refuse a conversation; jinja2 raises errors of several kinds.
                except Exception as refusal:
                    words = str(refusal)
                    with pytest.raises((RequestError, TokenizerError)) as raised:
                        renderers.ours(chat, **variables)
                    if isinstance(raised.value, RequestError):
                        assert words in str(raised.value), f"{name}, {kind}: refused with another message"
                    continue
                assert renderers.ours(chat, **variables) == expected, f"{name}, {kind}"
                rendered += 1
        assert rendered, "the template refuses every conversation"

// SPDX-License-Identifier: Apache-2.0
#include "models/model_factory.h"

#include <dlfcn.h>

#include "atb_core/error.h"
#include "models/decoder_model.h"

namespace atb_core {
namespace {

REGISTER_MODEL(core, DecoderModel);

// What dlerror() says ends with the reason.
std::string load_error() {
  const char* text = dlerror();
  return text ? text : "unknown reason";
}

const std::vector<ModelRegistration>& models_of(void* library, const std::string& path) {
  using AbiFunction = int (*)();
  using ModelsFunction = const void* (*)();
  const auto abi = reinterpret_cast<AbiFunction>(dlsym(library, "atb_model_abi"));
  const auto models = reinterpret_cast<ModelsFunction>(dlsym(library, "atb_models"));
  if (!abi || !models) fail(path, " is no library of models: it lacks ATB_NATIVE_LIBRARY() of atb_core/model.h");
  if (abi() == -kModelAbi) {
    fail(path, " was built for the other ABI of libstdc++ than this core: compile it with -D_GLIBCXX_USE_CXX11_ABI=",
         kModelAbi > 0 ? 1 : 0);
  }
  if (abi() != kModelAbi) {
    fail(path, " was built for version ", abi(), " of atb_core/model.h, this core has version ", kModelAbi,
         ": build it again with this core's headers");
  }
  return *static_cast<const std::vector<ModelRegistration>*>(models());
}

}  // namespace

ModelFactory& ModelFactory::instance() {
  static ModelFactory factory;
  return factory;
}

ModelFactory::ModelFactory() {
  for (const ModelRegistration& registration : LocalModels()) add(registration, "atb_core");
}

void ModelFactory::add(const ModelRegistration& registration, const std::string& owner) {
  const std::lock_guard lock(mutex_);
  const auto [place, fresh] = entries_.emplace(registration.name, Entry{registration.create, owner});
  if (!fresh) fail("the model '", registration.name, "' of ", owner, " is already registered by ", place->second.owner);
}

std::vector<std::string> ModelFactory::load_library(const std::string& path) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = libraries_.find(path); known != libraries_.end()) return known->second;
  }
  // Never closed: its models may outlive any handle.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) fail("cannot load ", path, ": ", load_error());
  const std::vector<ModelRegistration>& models = models_of(library, path);
  if (models.empty()) fail(path, " registers no model: use REGISTER_MODEL of atb_core/model.h");
  std::vector<std::string> names;
  for (const ModelRegistration& registration : models) {
    add(registration, path);
    names.push_back(registration.name);
  }
  const std::lock_guard lock(mutex_);
  return libraries_[path] = names;
}

std::shared_ptr<Model> ModelFactory::create(const std::string& name, const std::string& param) const {
  ModelCreator create;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    if (found == entries_.end()) {
      std::string known;
      for (const auto& [other, entry] : entries_) known += (known.empty() ? "" : ", ") + other;
      fail("no C++ model is called '", name, "'; there are ", known);
    }
    create = found->second.create;
  }
  return create(param);
}

std::vector<std::string> ModelFactory::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

}  // namespace atb_core

// SPDX-License-Identifier: Apache-2.0
#include "models/model_factory.h"

#include <dlfcn.h>

#include <filesystem>
#include <utility>

#include "atb_core/error.h"
#include "models/decoder_model.h"

namespace atb_core {
namespace {

REGISTER_MODEL(core, DecoderModel);

// Returns the reason, which ends the text of dlerror().
std::string load_error() {
  const char* text = dlerror();
  return text ? text : "unknown reason";
}

int version_of(int abi) { return abi < 0 ? -abi : abi % 1000; }

const char* standard_library(int abi) {
  if (abi < 0) return "libstdc++ with _GLIBCXX_USE_CXX11_ABI=0";
  if (abi >= 2000) return "libc++";
  return abi >= 1000 ? "libstdc++ with _GLIBCXX_DEBUG" : "libstdc++ with _GLIBCXX_USE_CXX11_ABI=1";
}

void check_abi(int abi, const std::string& path) {
  if (abi == kModelAbi) return;
  if (version_of(abi) != kModelVersion) {
    fail(path, " was built for version ", version_of(abi), " of atb_core/model.h, this core has version ",
         kModelVersion, ": build it again with this core's headers");
  }
  fail(path, " was built with ", standard_library(abi), ", this core with ", standard_library(kModelAbi),
       ": models cross the border as C++ objects, compile it as the core was");
}

const std::vector<ModelRegistration>& models_of(void* library, const std::string& path) {
  using AbiFunction = int (*)();
  using ModelsFunction = const void* (*)();
  const auto abi = reinterpret_cast<AbiFunction>(dlsym(library, "atb_model_abi"));
  const auto models = reinterpret_cast<ModelsFunction>(dlsym(library, "atb_models"));
  if (!abi || !models) fail(path, " is no library of models: it lacks ATB_NATIVE_LIBRARY() of atb_core/model.h");
  check_abi(abi(), path);
  const void* found = models();
  if (!found) fail(path, ": atb_models() gives no list: use ATB_NATIVE_LIBRARY() of atb_core/model.h");
  return *static_cast<const std::vector<ModelRegistration>*>(found);
}

// Returns the models of a library, which is loaded now unless it is loaded already.
const std::vector<ModelRegistration>& opened(const std::string& path) {
  if (path.empty()) fail("the path of the library is empty");
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown)) fail(path, " is a folder, not a library");
  // The library is never closed: its models may outlive any handle.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) fail("cannot load ", path, ": ", load_error());
  const std::vector<ModelRegistration>& models = models_of(library, path);
  if (models.empty()) fail(path, " registers no model: use REGISTER_MODEL of atb_core/model.h");
  return models;
}

}  // namespace

ModelFactory& ModelFactory::instance() {
  static ModelFactory factory;
  return factory;
}

ModelFactory::ModelFactory() { add(LocalModels(), "atb_core"); }

std::vector<std::string> ModelFactory::add(const std::vector<ModelRegistration>& models, const std::string& owner,
                                           const Owners& taken) {
  const std::lock_guard lock(mutex_);
  std::map<std::string, Entry> fresh;
  std::vector<std::string> names;
  const auto refuse = [&](const std::string& name, const std::string& other) {
    fail("the model '", name, "' of ", owner, " is already registered by ", other, ": give it another name");
  };
  for (const auto& [name, create] : models) {
    if (name.empty() || !create) fail("a model of ", owner, " has no ", name.empty() ? "name" : "creator");
    if (const auto known = entries_.find(name); known != entries_.end()) refuse(name, known->second.owner);
    if (const auto known = taken.find(name); known != taken.end()) refuse(name, known->second);
    if (!fresh.emplace(name, Entry{create, owner}).second) fail(owner, " registers the model '", name, "' twice");
    names.push_back(name);
  }
  entries_.merge(fresh);
  return names;
}

std::vector<std::string> ModelFactory::load_library(const std::string& path, const Owners& taken) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = libraries_.find(path); known != libraries_.end()) return known->second;
  }
  std::vector<std::string> names = add(opened(path), path, taken);
  const std::lock_guard lock(mutex_);
  return libraries_[path] = std::move(names);
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
  std::shared_ptr<Model> model = create(param);
  if (!model) fail("the creator of the model '", name, "' gives none");
  return model;
}

std::vector<std::string> ModelFactory::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

}  // namespace atb_core

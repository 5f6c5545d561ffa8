// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "atb_core/model.h"

namespace atb_core {

// The models of this process by name: the core's own and those of the libraries that were loaded.
class ModelFactory {
 public:
  static ModelFactory& instance();

  // Who has a name outside of this factory, by name.
  using Owners = std::map<std::string, std::string>;

  // Registers all of them or none; returns their names. Throws Error when a name is taken, naming who has it.
  std::vector<std::string> add(const std::vector<ModelRegistration>& models, const std::string& owner,
                               const Owners& taken = {});

  // Loads a shared library and registers its models; returns their names. A library is loaded once. Throws Error
  // naming the file when it cannot be loaded, was built for another version of the headers or another standard library,
  // has no models, or one whose name is taken.
  std::vector<std::string> load_library(const std::string& path, const Owners& taken = {});

  // Throws Error with the known names when there is no such model, when its creator gives none, or when the model
  // refuses the parameters.
  std::shared_ptr<Model> create(const std::string& name, const std::string& param) const;

  std::vector<std::string> names() const;

 private:
  ModelFactory();

  struct Entry {
    ModelCreator create;
    std::string owner;
  };

  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::vector<std::string>> libraries_;
};

}  // namespace atb_core

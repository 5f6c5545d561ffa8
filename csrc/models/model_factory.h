// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "atb_core/model.h"

namespace atb_core {

// Holds the models of this process by name: the core's own and those of the libraries that were loaded.
class ModelFactory {
 public:
  static ModelFactory& instance();

  // Owners of names that are in use outside of this factory.
  using Owners = std::map<std::string, std::string>;

  // Registers all of the models or none and returns their names. Throws Error if a name is taken, with its owner.
  std::vector<std::string> add(const std::vector<ModelRegistration>& models, const std::string& owner,
                               const Owners& taken = {});

  // Loads a shared library, registers its models and returns their names. A library is loaded once. Throws Error naming
  // the file if it cannot be loaded, was built for another version of the headers or another standard library, has no
  // models, or has one whose name is taken.
  std::vector<std::string> load_library(const std::string& path, const Owners& taken = {});

  // Creates a model. Throws Error with the known names if there is no such model, if its creator returns none, or if
  // the model refuses the parameters.
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

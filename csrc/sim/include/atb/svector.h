// SPDX-License-Identifier: Apache-2.0
// A vector with room for some elements in itself, laid out as ATB's.
#pragma once

#include <cstddef>
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <utility>

namespace atb {

constexpr std::size_t MAX_SVECTOR_SIZE = 256;
constexpr std::size_t DEFAULT_SVECTOR_SIZE = 64;

struct MaxSizeExceeded : public std::exception {
  const char* what() const noexcept override { return "an SVector got too large or an index was out of range"; }
};

template <class T>
class SVector {
 public:
  SVector() = default;
  explicit SVector(std::size_t size, const T& value = T()) {
    resize(size);
    for (T& element : *this) element = value;
  }
  SVector(std::initializer_list<T> list) { assign(list); }
  SVector(const SVector& other) { assign(other.begin(), other.size_); }
  SVector& operator=(const SVector& other) {
    if (this != &other) assign(other.begin(), other.size_);
    return *this;
  }
  SVector& operator=(std::initializer_list<T> list) {
    assign(list);
    return *this;
  }
  ~SVector() { delete[] heap_; }

  void push_back(const T& value) {
    require(size_ < capacity_);
    begin()[size_++] = value;
  }
  // Beyond the elements in line the room has to be made before it is used.
  void reserve(std::size_t count) {
    require(count <= MAX_SVECTOR_SIZE);
    if (count <= capacity_) return;
    std::unique_ptr<T[]> larger(new T[count]());
    for (std::size_t i = 0; i < size_; ++i) larger[i] = std::move(begin()[i]);
    delete[] heap_;
    heap_ = larger.release();
    capacity_ = count;
  }
  // As in ATB 8.1 and 8.2: a size that was not reserved is refused. Later versions lose or overrun elements there.
  void resize(std::size_t count) {
    require(count <= capacity_);
    for (std::size_t i = size_; i < count; ++i) begin()[i] = T();
    size_ = count;
  }
  void clear() { size_ = 0; }

  T& at(std::size_t index) {
    require(index < size_);
    return begin()[index];
  }
  const T& at(std::size_t index) const {
    require(index < size_);
    return begin()[index];
  }
  T& operator[](std::size_t index) { return at(index); }
  const T& operator[](std::size_t index) const { return at(index); }

  T* begin() { return heap_ != nullptr ? heap_ : storage_; }
  const T* begin() const { return heap_ != nullptr ? heap_ : storage_; }
  T* end() { return begin() + size_; }
  const T* end() const { return begin() + size_; }
  T* data() { return begin(); }
  const T* data() const { return begin(); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  bool operator==(const SVector& other) const {
    if (size_ != other.size_) return false;
    for (std::size_t i = 0; i < size_; ++i) {
      if (!(begin()[i] == other.begin()[i])) return false;
    }
    return true;
  }
  bool operator!=(const SVector& other) const { return !(*this == other); }

 private:
  static void require(bool condition) {
    if (!condition) throw MaxSizeExceeded();
  }
  // A list of more elements than there are in line is refused even where there is room.
  void assign(std::initializer_list<T> list) {
    require(list.size() <= DEFAULT_SVECTOR_SIZE);
    assign(list.begin(), list.size());
  }
  void assign(const T* values, std::size_t count) {
    reserve(count);
    for (std::size_t i = 0; i < count; ++i) begin()[i] = values[i];
    size_ = count;
  }

  std::size_t capacity_ = DEFAULT_SVECTOR_SIZE;
  std::size_t size_ = 0;
  T storage_[DEFAULT_SVECTOR_SIZE + 1] = {};
  T* heap_ = nullptr;
};

}  // namespace atb

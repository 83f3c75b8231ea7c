// A small, strict JSON reader for the two files of an artifact: safetensors headers and config.json.
#pragma once

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace sqb {

// What is wrong with a file or an input, in one line for the user.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };

  // Throws InputError on anything that is not one JSON value, and on nesting deeper than 64.
  static Json parse(std::string_view text);

  Kind kind() const { return kind_; }
  double number() const { return number_; }
  bool boolean() const { return number_ != 0; }
  const std::string& string() const { return string_; }
  const std::vector<Json>& items() const { return items_; }
  const std::map<std::string, Json>& fields() const { return fields_; }
  // A field of an object; null: none of that name.
  const Json* find(const std::string& name) const;

 private:
  friend class JsonParser;
  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::map<std::string, Json> fields_;
};

}  // namespace sqb

#include "json.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace sqb {

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Json document() {
    Json value = read(0);
    skip_space();
    if (at_ != text_.size()) fail("text after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw InputError("not valid JSON (" + std::string(what) + " at byte " + std::to_string(at_) + ")");
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void expect(char c) {
    if (at_ >= text_.size() || text_[at_] != c) fail("unexpected character");
    ++at_;
  }
  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json read(int depth) {
    if (depth > 64) fail("nested too deeply");
    skip_space();
    Json value;
    const char c = peek();
    if (c == '{') {
      value.kind_ = Json::Kind::object;
      ++at_;
      skip_space();
      if (peek() == '}') return ++at_, value;
      for (;;) {
        skip_space();
        std::string name = read_string();
        skip_space();
        expect(':');
        Json field = read(depth + 1);
        if (!value.fields_.emplace(std::move(name), std::move(field)).second) fail("a name twice");
        skip_space();
        if (peek() == '}') return ++at_, value;
        expect(',');
      }
    }
    if (c == '[') {
      value.kind_ = Json::Kind::array;
      ++at_;
      skip_space();
      if (peek() == ']') return ++at_, value;
      for (;;) {
        value.items_.push_back(read(depth + 1));
        skip_space();
        if (peek() == ']') return ++at_, value;
        expect(',');
      }
    }
    if (c == '"') {
      value.kind_ = Json::Kind::string;
      value.string_ = read_string();
      return value;
    }
    if (take("null")) return value;
    if (take("true") || take("false")) {
      value.kind_ = Json::Kind::boolean;
      value.number_ = text_[at_ - 2] == 'u' ? 1 : 0;
      return value;
    }
    value.kind_ = Json::Kind::number;
    value.number_ = read_number();
    return value;
  }

  // By hand: strtod expects the decimal sign of the program's locale. Whole numbers below 2^53, and up to 15 digits times
  // up to 10^22, are exact or rounded once.
  double read_number() {
    const bool negative = take("-");
    double value = 0;
    const size_t start = at_;
    read_digits(value);
    if (text_[start] == '0' && at_ > start + 1) fail("not a value");
    int power = 0;
    if (take(".")) power = -read_digits(value);
    if (take("e") || take("E")) {
      const bool down = take("-");
      if (!down) take("+");
      double exponent = 0;
      read_digits(exponent);
      power += static_cast<int>(std::min(exponent, 9999.0)) * (down ? -1 : 1);
    }
    value = power < 0 ? value / std::pow(10.0, -power) : value * std::pow(10.0, power);
    if (!std::isfinite(value)) fail("not a value");
    return negative ? -value : value;
  }

  // Digits, at least one, put after those of `value`; returns how many.
  int read_digits(double& value) {
    const size_t start = at_;
    for (; peek() >= '0' && peek() <= '9'; ++at_) value = value * 10 + (peek() - '0');
    if (at_ == start) fail("not a value");
    return static_cast<int>(at_ - start);
  }

  uint32_t read_hex() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) fail("not a character code");
      code = code * 16 + static_cast<uint32_t>(digit);
      ++at_;
    }
    return code;
  }

  std::string read_string() {
    expect('"');
    std::string out;
    for (;;) {
      if (at_ >= text_.size()) fail("text without end");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("control character in a text");
      if (c != '\\') {
        out += c;
        continue;
      }
      const char escape = peek();
      ++at_;
      if (escape == 'u') {
        uint32_t code = read_hex();
        if (code >= 0xd800 && code < 0xdc00 && take("\\u")) {
          const uint32_t low = read_hex();
          if (low < 0xdc00 || low > 0xdfff) fail("half a character");
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        append_utf8(out, code);
      } else {
        // Pairs of escape and character; find the escape at an even place.
        static const char pairs[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
        const char* plain = nullptr;
        for (size_t i = 0; i + 1 < sizeof(pairs); i += 2)
          if (pairs[i] == escape) plain = pairs + i + 1;
        if (plain == nullptr) fail("unknown escape");
        out += *plain;
      }
    }
  }

  static void append_utf8(std::string& out, uint32_t code) {
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xc0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 63));
    } else if (code < 0x10000) {
      out += static_cast<char>(0xe0 | (code >> 12));
      out += static_cast<char>(0x80 | ((code >> 6) & 63));
      out += static_cast<char>(0x80 | (code & 63));
    } else {
      out += static_cast<char>(0xf0 | (code >> 18));
      out += static_cast<char>(0x80 | ((code >> 12) & 63));
      out += static_cast<char>(0x80 | ((code >> 6) & 63));
      out += static_cast<char>(0x80 | (code & 63));
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

const Json* Json::find(const std::string& name) const {
  const auto found = fields_.find(name);
  return found == fields_.end() ? nullptr : &found->second;
}

}  // namespace sqb

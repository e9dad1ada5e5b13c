#pragma once
#include "keys.h"
namespace regard {
template <class In, class Unit>
struct Backward { explicit Backward(const RegardCall&) {} bool run() { return true; } };
}

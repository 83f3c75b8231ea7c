// Coefficients of the polynomials in ops/activation.h, which says what they are.
#pragma once

namespace sqb {

constexpr float kGeluEnd = 3.9f;
constexpr float kGelu[7] = {-0.49932950735092163f, 0.3851953446865082f,   0.05218341946601868f,   -0.14727507531642914f,
                            0.06046706438064575f,  -0.0104904780164361f, 0.0006865545292384923f};
constexpr float kExp2[6] = {1.0000001192092896f,  0.6931469440460205f,   0.24022120237350464f,
                            0.05550713464617729f, 0.009675541892647743f, 0.0013276429381221533f};
constexpr float kLog2E = 1.44269504f;

}  // namespace sqb

// Coefficients of the polynomials in ops/activation.h, which says what they are.
#pragma once

namespace sqb {

constexpr float kGeluEnd = 4.8f;
constexpr float kGelu[11] = {0.2944255769252777f,   -0.1459594964981079f,   0.10580814629793167f,  -0.08113225549459457f,
                             0.061442263424396515f, -0.044373176991939545f, 0.027725638821721077f, -0.014890001155436039f,
                             0.010788745246827602f, -0.00838743057101965f,  0.0028853274416178465f};
constexpr float kExp2[6] = {1.0000001192092896f,  0.6931469440460205f,   0.24022120237350464f,
                            0.05550713464617729f, 0.009675541892647743f, 0.0013276429381221533f};
constexpr float kLog2E = 1.44269504f;

}  // namespace sqb

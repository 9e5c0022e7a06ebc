/*
 * lanes_flush.h: what one lane of Arm's vectors computes, in scalars, for a PC that plays such a core. Part of lanes.h.
 *
 * They flush whatever FPSCR says (Armv8-M reference manual, Arm DDI 0553, StandardFPSCRValue): a subnormal operand
 * counts as zero, a result is zero if what is rounded lies below FLT_MIN, though it may round to that, and either zero
 * keeps the sign. A NaN is 0x7fc00000. A PC's own flushing looks at what was rounded. Conversions to and from binary16
 * flush operands only: both formats' zeros are the same, so that shows in nothing but a NaN.
 */
#define STROP_NAN_BITS 0x7fc00000u

STROP_INLINE bool strop_lane_tiny(double x) { return __builtin_fabs(x) < (double)FLT_MIN; }

STROP_INLINE float strop_lane_operand(float a) {
    const uint32_t bits = strop_float_bits(a);
    return strop_bits_float(__builtin_fabsf(a) < FLT_MIN ? bits & 0x80000000u : bits);
}

/* y as a result. tiny: y was, before it was rounded. */
STROP_INLINE float strop_lane_result(float y, bool tiny) {
    const uint32_t bits = strop_float_bits(y);
    return strop_bits_float(y != y ? STROP_NAN_BITS : tiny ? bits & 0x80000000u : bits);
}

/* A sum that is subnormal is exact. */
STROP_INLINE float strop_lane_add(float a, float b) {
    const float y = strop_lane_operand(a) + strop_lane_operand(b);
    return strop_lane_result(y, strop_lane_tiny(y));
}

STROP_INLINE float strop_lane_sub(float a, float b) { return strop_lane_add(a, -b); }

/* A product is exact in double. */
STROP_INLINE float strop_lane_mul(float a, float b) {
    const double product = (double)strop_lane_operand(a) * strop_lane_operand(b);
    return strop_lane_result((float)product, strop_lane_tiny(product));
}

/* The sum of the exact product and c in double, and what its rounding left (Knuth), which decides at FLT_MIN itself. */
STROP_INLINE float strop_lane_fma(float a, float b, float c) {
    const float x = strop_lane_operand(a), y = strop_lane_operand(b), z = strop_lane_operand(c);
    const double product = (double)x * y, sum = product + z, most = sum - product;
    const double left = (product - (sum - most)) + (z - most);
    const bool below = __builtin_fabs(sum) == (double)FLT_MIN && left * sum < 0.0;
    return strop_lane_result(strop_fmaf(x, y, z), strop_lane_tiny(sum) || below);
}

STROP_INLINE bool strop_lane_gt(float a, float b) { return strop_lane_operand(a) > strop_lane_operand(b); }
STROP_INLINE bool strop_lane_ge(float a, float b) { return strop_lane_operand(a) >= strop_lane_operand(b); }
STROP_INLINE bool strop_lane_eq(float a, float b) { return strop_lane_operand(a) == strop_lane_operand(b); }

STROP_INLINE float strop_lane_f16_float(uint16_t h) { return strop_lane_result(strop_f16_float(h), false); }
STROP_INLINE uint16_t strop_lane_f16_bits(float x) { return x != x ? 0x7e00u : strop_f16_bits(x); }

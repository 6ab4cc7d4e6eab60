/* Names of the vector instructions that the compiler was allowed to use, for `kronmodel info --system`. */

const char *kron_instructions(void);

const char *kron_instructions(void) {
#if defined(__AVX512VNNI__)
    return "AVX-512 with VNNI";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVXVNNI__)
    return "AVX2 with VNNI";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__SSE2__)
    return "SSE2";
#elif defined(__ARM_FEATURE_DOTPROD)
    return "NEON with dot products";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "no vector instructions known";
#endif
}

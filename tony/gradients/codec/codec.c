/* The codec of error-compensated quantized gradients. See codec/__init__.py for the meaning of every argument,
 * quantizer.py and feedback.py for the definition; the results are equal to theirs bit for bit.
 *
 * Plain loops over blocks of 512 elements, compiled several times for several instruction sets and chosen at run
 * time. Compile with -ffp-contract=off: a fused multiply-add would change bits. Nothing is allocated.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#else
#define X86 0
#endif

#define BLOCK 512
#define LANES 16
#define TOO_LARGE 0x79800000
#define TOO_SMALL 0x0D800000
#define NOT_A_NUMBER 0x7FC00000
/* Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits. */
#define MAGIC 12582912.0f
#define MAGIC_BITS 0x4B400000
#define GOLDEN 0x9E3779B9u

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const float *gradient;
    const float *residual;
    float *kept;
    float *units;
    uint8_t *codes;
    float *stats;
    size_t n;
    uint32_t key;
    uint32_t first;
    float alpha;
    float carry;
    int bits;
    int stochastic;
} encode_job;

typedef struct {
    const float *units;
    const uint8_t *codes;
    float *out;
    size_t n;
    float weight;
    int bits;
    int accumulate;
} decode_job;

INLINE float as_float(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE int32_t as_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* One hash for the elements j and j + 256 of a block: 16 bits each. */
INLINE void dither_block(uint32_t key, uint32_t first, uint32_t *restrict numbers) {
    const uint32_t start = first / 2 * GOLDEN + key;
    for (int j = 0; j < BLOCK / 2; j++) {
        uint32_t x = start + (uint32_t)j * GOLDEN;
        x ^= x >> 15;
        x *= 0x846CA68Bu;
        x ^= x >> 16;
        numbers[j] = x;
    }
}

INLINE float lane_sum(float *lanes) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] = lanes[i] + lanes[i + half];
    return lanes[0];
}

INLINE void pack_block(const int32_t *restrict stored, uint8_t *restrict codes, int bits) {
    if (bits == 2) {
        for (int j = 0; j < 128; j++)
            codes[j] = (uint8_t)(stored[j] | stored[j + 128] << 2 | stored[j + 256] << 4 | stored[j + 384] << 6);
    } else if (bits == 4) {
        for (int j = 0; j < 256; j++)
            codes[j] = (uint8_t)(stored[j] | stored[j + 256] << 4);
    } else {
        for (int j = 0; j < 512; j++)
            codes[j] = (uint8_t)stored[j];
    }
}

INLINE int encode_block(const float *restrict g, const float *restrict h, float *restrict kept,
                        float *restrict unit_out, uint8_t *restrict codes, float *restrict stats, int bits,
                        int stochastic, uint32_t key, uint32_t first, float alpha, float carry) {
    const int32_t levels = bits == 2 ? 1 : bits == 4 ? 7 : 127;
    const int32_t top = stochastic ? levels : levels + 1;
    float v[BLOCK];
    uint32_t numbers[BLOCK / 2];
    int32_t stored[BLOCK];
    int32_t largest = 0, highest = 0;
    for (int i = 0; i < BLOCK; i++) {
        v[i] = g[i] + alpha * h[i];
        const int32_t magnitude = as_bits(v[i]) & 0x7FFFFFFF;
        largest = magnitude > largest ? magnitude : largest;
        highest = as_bits(v[i]) > highest ? as_bits(v[i]) : highest; /* the largest of those above zero */
    }
    if (largest >= TOO_LARGE || largest < TOO_SMALL) {
        const int bad = largest >= TOO_LARGE;
        *unit_out = bad ? as_float(NOT_A_NUMBER) : 0.0f;
        for (int i = 0; i < BLOCK; i++) {
            kept[i] = bad ? h[i] : v[i] + carry * h[i];
            stored[i] = levels;
        }
        if (stats)
            stats[0] = stats[1] = 0.0f;
        pack_block(stored, codes, bits);
        return bad;
    }
    const float scale = as_float(largest);
    const uint32_t sign = stochastic || highest == largest ? 0 : 0x80000000u;
    const float unit = as_float((int32_t)((((uint32_t)as_bits(scale / (float)top) + 0xFFFFu) & 0xFFFF0000u) | sign));
    const float inverse = 1.0f / unit;
    *unit_out = unit;
    if (stochastic)
        dither_block(key, first, numbers);
    float errors[LANES] = {0}, signals[LANES] = {0};
    for (int row = 0; row < BLOCK; row += LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            const int i = row + lane;
            const float scaled = v[i] * inverse;
            int32_t q;
            if (stochastic) {
                const uint32_t number = row < BLOCK / 2 ? numbers[i] & 0xFFFFu : numbers[i - BLOCK / 2] >> 16;
                q = ((int32_t)(scaled * 65536.0f) + (int32_t)number) >> 16;
            } else {
                q = as_bits(scaled + MAGIC) - MAGIC_BITS;
            }
            q = q > top ? top : q;
            q = q < -levels ? -levels : q;
            const float code = (float)q;
            const float error = v[i] - code * unit;
            kept[i] = error + carry * h[i];
            stored[i] = q + levels;
            if (stats) {
                const float difference = scaled - code;
                errors[lane] += difference * difference;
                signals[lane] += scaled * scaled;
            }
        }
    }
    if (stats) {
        stats[0] = lane_sum(errors);
        stats[1] = lane_sum(signals);
    }
    pack_block(stored, codes, bits);
    return 0;
}

INLINE int64_t encode_all(const encode_job *job, int bits, int stochastic, int with_stats) {
    const size_t block_bytes = (size_t)bits * (BLOCK / 8);
    const size_t whole = job->n / BLOCK;
    const size_t tail = job->n % BLOCK;
    int64_t bad = 0;
    for (size_t b = 0; b < whole; b++)
        bad += encode_block(job->gradient + b * BLOCK, job->residual + b * BLOCK, job->kept + b * BLOCK,
                            job->units + b, job->codes + b * block_bytes, with_stats ? job->stats + 2 * b : NULL,
                            bits, stochastic, job->key, job->first + (uint32_t)(b * BLOCK), job->alpha, job->carry);
    if (tail) {
        float g[BLOCK] = {0}, h[BLOCK] = {0}, kept[BLOCK];
        memcpy(g, job->gradient + whole * BLOCK, tail * sizeof *g);
        memcpy(h, job->residual + whole * BLOCK, tail * sizeof *h);
        bad += encode_block(g, h, kept, job->units + whole, job->codes + whole * block_bytes,
                            with_stats ? job->stats + 2 * whole : NULL, bits, stochastic, job->key,
                            job->first + (uint32_t)(whole * BLOCK), job->alpha, job->carry);
        memcpy(job->kept + whole * BLOCK, kept, tail * sizeof *kept);
    }
    return bad;
}

INLINE void decode_block(float unit, const uint8_t *restrict codes, float *restrict out, int bits, int accumulate) {
    const int32_t levels = bits == 2 ? 1 : bits == 4 ? 7 : 127;
    const int per_byte = 8 / bits;
    const int plane = BLOCK / per_byte;
    for (int p = 0; p < per_byte; p++) {
        float *restrict target = out + p * plane;
        for (int j = 0; j < plane; j++) {
            const int32_t q = (int32_t)((codes[j] >> (p * bits)) & ((1 << bits) - 1)) - levels;
            const float value = (float)q * unit;
            target[j] = accumulate ? target[j] + value : value;
        }
    }
}

INLINE void decode_all(const decode_job *job, int bits, int accumulate) {
    const size_t block_bytes = (size_t)bits * (BLOCK / 8);
    const size_t whole = job->n / BLOCK;
    const size_t tail = job->n % BLOCK;
    for (size_t b = 0; b < whole; b++)
        decode_block(job->units[b] * job->weight, job->codes + b * block_bytes, job->out + b * BLOCK, bits,
                     accumulate);
    if (tail) {
        float out[BLOCK] = {0};
        memcpy(out, job->out + whole * BLOCK, tail * sizeof *out);
        decode_block(job->units[whole] * job->weight, job->codes + whole * block_bytes, out, bits, accumulate);
        memcpy(job->out + whole * BLOCK, out, tail * sizeof *out);
    }
}

#define ENCODE_BITS(bits)                                                                                      \
    (job->stochastic ? (job->stats ? encode_all(job, bits, 1, 1) : encode_all(job, bits, 1, 0))                \
                     : (job->stats ? encode_all(job, bits, 0, 1) : encode_all(job, bits, 0, 0)))
#define DECODE_BITS(bits) (job->accumulate ? decode_all(job, bits, 1) : decode_all(job, bits, 0))

#define KERNELS(name, attributes)                                                                              \
    attributes static int64_t encode_##name(const encode_job *job) {                                           \
        return job->bits == 2 ? ENCODE_BITS(2) : job->bits == 4 ? ENCODE_BITS(4) : ENCODE_BITS(8);             \
    }                                                                                                          \
    attributes static void decode_##name(const decode_job *job) {                                              \
        if (job->bits == 2)                                                                                    \
            DECODE_BITS(2);                                                                                    \
        else if (job->bits == 4)                                                                               \
            DECODE_BITS(4);                                                                                    \
        else                                                                                                   \
            DECODE_BITS(8);                                                                                    \
    }

KERNELS(plain, )
#if X86
KERNELS(avx2, __attribute__((target("avx2"))))
KERNELS(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))))
#endif

/* 0: whatever the compiler targets by default, 1: AVX2, 2: AVX-512. */
int tony_codec_best(void) {
#if X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return 2;
    if (__builtin_cpu_supports("avx2"))
        return 1;
#endif
    return 0;
}

int64_t tony_codec_encode(const float *gradient, const float *residual, float *kept, float *units, uint8_t *codes,
                          float *stats, size_t n, uint32_t key, uint32_t first, float alpha, float carry, int bits,
                          int stochastic, int isa) {
    const encode_job job = {gradient, residual, kept,  units, codes, stats,     n,
                            key,      first,    alpha, carry, bits,  stochastic};
    int64_t bad;
#if X86
    /* Frameworks switch denormals off in their threads; the residual needs them. */
    const unsigned int mode = _mm_getcsr();
    _mm_setcsr(0x1F80);
    bad = isa == 2 ? encode_avx512(&job) : isa == 1 ? encode_avx2(&job) : encode_plain(&job);
    _mm_setcsr(mode);
#else
    (void)isa;
    bad = encode_plain(&job);
#endif
    return bad;
}

void tony_codec_decode(const float *units, const uint8_t *codes, float *out, size_t n, float weight, int bits,
                       int accumulate, int isa) {
    const decode_job job = {units, codes, out, n, weight, bits, accumulate};
#if X86
    const unsigned int mode = _mm_getcsr();
    _mm_setcsr(0x1F80);
    if (isa == 2)
        decode_avx512(&job);
    else if (isa == 1)
        decode_avx2(&job);
    else
        decode_plain(&job);
    _mm_setcsr(mode);
#else
    (void)isa;
    decode_plain(&job);
#endif
}

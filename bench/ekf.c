/* The estimator of bms/core/estimator.py once more, in C: what the compiled Python is measured against by bench/ekf.py.
 *
 * The same algorithm on the same memory, statement by statement; compiled several ways. The structs `head` and `shared`
 * come in front of this file, written by bench/ekf.py from the layouts. Lane loops have constant bounds, pointers are
 * `restrict`, blocks are aligned to their cache lines, and rows keep constant distances.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#define LANES 16
#define NODE 16
#define N_SOC 201
#define N_DEGC 19
#define ALIGNED(p) __builtin_assume_aligned(p, 64)
#ifdef SCALAR
#define LANE_LOOP
#else
#define LANE_LOOP _Pragma("GCC ivdep")
#endif

#define VARIANCE_MIN 1e-14f
#define DECORRELATE 1e-5f
#define Z_MIN (-0.02f)
#define Z_MAX 1.02f
#define R_MAX 0.7f
#define Q_MAX 0.2f
#define UNKNOWN 1.0f
#define NOISE_MIN 1e-4f
#define PER_GATE2 (1.0f / 25.0f)

enum { /* rows of a block */
    XA, XB, XC, XD, XH, XW, XZ, XR, XQ, XL, PAA, PAB, PBB, PAC, PBC, PCC, PAD, PBD, PCD, PDD, PAH, PBH, PCH,
    PDH, PHH, PAW, PBW, PCW, PDW, PHW, PWW, PAZ, PBZ, PCZ, PDZ, PHZ, PWZ, PZZ, PAR, PBR, PCR, PDR, PHR, PWR,
    PZR, PRR, PAQ, PBQ, PCQ, PDQ, PHQ, PWQ, PZQ, PRQ, PQQ, SA, SB, SC, SD, SH, SW, SZ, SR, SQ,
    BLOCK_ROWS
};

enum { /* rows of the scratch; the parameters of a node follow */
    W_V, W_OK, W_Z, W_FT, W_FZ, W_INFO, W_PULL, W_ALL_OK,
    W_OCV, W_SLOPE, W_M, W_R0, W_R1, W_R2, W_R3, W_R4, W_RCT, W_GAMMA, W_M0, W_W_STD, W_W_KNEE, W_RATE, W_ETA, W_WIDE,
    W_END = W_OCV + NODE
};

struct step { /* the same for all cells */
    float dt_s, i_mid, i_end, i_ct, di_ct, towards, sign, b1, b2, b3, b4, bw, current_var, rc_var, bias_var;
    float sz_max;
};

static inline float within(float x, float low, float high)
{
    x = x < high ? x : high;
    return x > low ? x : low;
}

static inline float at_least(float x, float low)
{
    return x > low ? x : low;
}

static inline float at_most(float x, float high)
{
    return x < high ? x : high;
}

static inline int32_t node(int32_t k, int32_t last)
{
    k = k > 0 ? k : 0;
    return k < last ? k : last;
}

static inline float expm1_small(float x)
{
    const float x2 = x * x;
    return x + x2 * ((1.0f / 2 + x * (1.0f / 6)) + x2 * ((1.0f / 24 + x * (1.0f / 120)) + x2 * (1.0f / 720)));
}

static inline float decay(float x)
{
    x = x < 5.5f ? x : 5.5f;
    float e = expm1_small(x * -0.0625f);
    e = e * (e + 2.0f);
    e = e * (e + 2.0f);
    e = e * (e + 2.0f);
    e = e * (e + 2.0f);
    return -e;
}

static float ours_expf(float x)
{
    x = fminf(fmaxf(x, -87.0f), 87.0f);
    const float t = x * 1.44269504088896f;
    const int n = t >= 0.0f ? (int)(t + 0.5f) : (int)(t - 0.5f);
    const float r = (x - (float)n * 0.693145751953125f) - (float)n * 1.42860682030941723e-6f;
    return (expm1_small(r) + 1.0f) * ldexpf(1.0f, n);
}

static float one_minus_exp(float x)
{
    return x < 0.3f ? -expm1_small(-x) : 1.0f - ours_expf(-x);
}

static float ours_logf(float x)
{
    int n = 0;
    for (; x > 1.41421356f; n++)
        x *= 0.5f;
    for (; x < 0.70710678f; n--)
        x *= 2.0f;
    const float t = (x - 1.0f) / (x + 1.0f), t2 = t * t;
    const float series = t * (2.0f + t2 * (2.0f / 3 + t2 * (2.0f / 5 + t2 * (2.0f / 7 + t2 * (2.0f / 9)))));
    return (float)n * 0.693145751953125f + ((float)n * 1.42860682030941723e-6f + series);
}

static float ours_asinhf(float x)
{
    const float a = fminf(fabsf(x), 1e6f), x2 = x * x;
    if (a < 0.1f)
        return x * (1.0f - x2 * (1.0f / 6 - x2 * (3.0f / 40)));
    return copysignf(ours_logf(a + sqrtf(a * a + 1.0f)), x);
}

static void gather(float *restrict w, int32_t *restrict index, const float *restrict f, const float *restrict cell_v,
                   const uint8_t *restrict quality, const float *restrict cell_degc, int64_t here,
                   const struct head *restrict k, float moved)
{
    const float degc_first = k->degc_first, nodes_per_kelvin = k->nodes_per_kelvin, nodes_per_soc = k->nodes_per_soc;
    if (here == LANES) {
        LANE_LOOP
        for (int c = 0; c < LANES; c++) {
            const float v = cell_v[c];
            const int good = (fabsf(v) < 100.0f) & (quality[c] == 0);
            w[W_V * LANES + c] = good ? v : 0.0f;
            const float ok = good ? 1.0f : 0.0f;
            w[W_OK * LANES + c] = ok;
            w[W_ALL_OK * LANES + c] = at_most(w[W_ALL_OK * LANES + c], ok);
        }
        for (int c = 0; c < LANES; c++)
            w[W_FT * LANES + c] = cell_degc[c];
    } else {
        for (int c = 0; c < LANES; c++) {
            const int64_t at = c < here ? c : here - 1;
            const float v = cell_v[at];
            const int good = (fabsf(v) < 100.0f) & (quality[at] == 0);
            w[W_V * LANES + c] = good ? v : 0.0f;
            w[W_OK * LANES + c] = good & (c < here) ? 1.0f : 0.0f;
            w[W_ALL_OK * LANES + c] = at_most(w[W_ALL_OK * LANES + c], good ? 1.0f : 0.0f);
            w[W_FT * LANES + c] = cell_degc[at];
        }
    }
    LANE_LOOP
    for (int c = 0; c < LANES; c++) {
        float degc = w[W_FT * LANES + c];
        degc = fabsf(degc) <= 3.4028235e38f ? degc : 25.0f;
        const float at_t = (within(degc, -60.0f, 120.0f) - degc_first) * nodes_per_kelvin;
        const int32_t t = node((int32_t)at_t, N_DEGC - 2);
        const float ft = within(at_t - (float)t, 0.0f, 1.0f);
        const float soc = f[XZ * LANES + c] - moved;
        const float at_z = soc * nodes_per_soc;
        const int32_t z = node((int32_t)at_z, N_SOC - 2);
        index[c] = t * N_SOC + z;
        w[W_Z * LANES + c] = soc;
        w[W_FT * LANES + c] = ft;
        w[W_FZ * LANES + c] = at_z - (float)z;
    }
}

#ifdef SCALAR
/* Between the cells, the lines of the block `following` are sent for. */
static void look_up(float *restrict w, const int32_t *restrict index, const float *restrict nodes,
                    const float *following)
{
    for (int c = 0; c < LANES; c++) {
        const float *restrict low = nodes + (int64_t)index[c] * NODE, *restrict high = low + N_SOC * NODE;
        const float ft = w[W_FT * LANES + c], fz = w[W_FZ * LANES + c];
        for (int k = 0; k < BLOCK_ROWS / LANES; k++)
            __builtin_prefetch(following + (c * (BLOCK_ROWS / LANES) + k) * LANES, 0, 2);
        for (int k = 0; k < NODE; k++) {
            const float cold = low[k] + fz * (low[NODE + k] - low[k]);
            const float warm = high[k] + fz * (high[NODE + k] - high[k]);
            w[(W_OCV + k) * LANES + c] = cold + ft * (warm - cold);
        }
    }
}
#else
typedef float row __attribute__((vector_size(4 * LANES)));
typedef int32_t mask __attribute__((vector_size(4 * LANES)));

#define PAIRS(distance, low, high)                                                                                     \
    _Pragma("GCC unroll 16") for (int k = 0; k < LANES; k++) if (!(k & distance)) {                                    \
        const row a = rows[k], b = rows[k + distance];                                                                 \
        rows[k] = __builtin_shuffle(a, b, low);                                                                        \
        rows[k + distance] = __builtin_shuffle(a, b, high);                                                            \
    }

/* The values of sixteen cells stay in registers while they are turned into rows. Between the cells, the lines of the
   block `following` are sent for. */
static void look_up(float *restrict w, const int32_t *restrict index, const float *restrict nodes,
                    const float *following)
{
    const mask low1 = {0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29};
    const mask high1 = {2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31};
    const mask low2 = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29};
    const mask high2 = {2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31};
    const mask low4 = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
    const mask high4 = {4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31};
    row rows[LANES];
    _Pragma("GCC unroll 16") for (int c = 0; c < LANES; c++) {
        for (int k = 0; k < BLOCK_ROWS / LANES; k++)
            __builtin_prefetch(following + (c * (BLOCK_ROWS / LANES) + k) * LANES, 0, 2);
        const row *low = ALIGNED(nodes + (int64_t)index[c] * NODE), *high = low + N_SOC;
        const float ft = w[W_FT * LANES + c], fz = w[W_FZ * LANES + c];
        const row cold = low[0] + fz * (low[1] - low[0]), warm = high[0] + fz * (high[1] - high[0]);
        rows[c] = cold + ft * (warm - cold);
    }
    PAIRS(1, low1, high1)
    PAIRS(2, low2, high2)
    PAIRS(4, low4, high4)
    PAIRS(8, low4, high4)
    row *to = ALIGNED(w + W_OCV * LANES);
    _Pragma("GCC unroll 16") for (int k = 0; k < LANES; k++)
        to[(k & ~3) | (k & 1) << 1 | (k & 2) >> 1] = rows[k];
}
#endif

static void update(float *restrict f_, float *restrict w_, uint8_t *restrict flags, float *restrict model_v,
                   float *restrict innovation, const struct head *restrict k, const struct step *restrict u_)
{
    float *restrict f = ALIGNED(f_), *restrict w = ALIGNED(w_);
    const struct step values = *u_, *const u = &values;
    int32_t flag[LANES] __attribute__((aligned(64))); /* as wide as the rest: bytes would narrow the vectors */
    const float a1 = 1.0f - u->b1, a2 = 1.0f - u->b2, a3 = 1.0f - u->b3, a4 = 1.0f - u->b4, aw = 1.0f - u->bw;
    const float a11 = a1 * a1, a12 = a1 * a2, a13 = a1 * a3, a14 = a1 * a4;
    const float a22 = a2 * a2, a23 = a2 * a3, a24 = a2 * a4, a33 = a3 * a3, a34 = a3 * a4, a44 = a4 * a4;
    const float a1w = a1 * aw, a2w = a2 * aw, a3w = a3 * aw, a4w = a4 * aw, aww = aw * aw;
    const float n1 = u->rc_var * (u->b1 * (2.0f - u->b1)), n2 = u->rc_var * (u->b2 * (2.0f - u->b2));
    const float n3 = u->rc_var * (u->b3 * (2.0f - u->b3)), n4 = u->rc_var * (u->b4 * (2.0f - u->b4));
    const float nw = u->bw * (2.0f - u->bw);
    const float h_var = k->h_noise * k->h_noise;
    const float white_v2 = k->voltage_std * k->voltage_std;
    const float slow_share = k->slow_share, model_corr = k->model_corr, knee_corr = k->knee_corr;
    const bool charging = u->i_mid <= 0.0f;
    const float wide2 = k->wide_soc * k->wide_soc, per_wide2 = 1.0f / wide2;
    const float observable2 = k->observable_soc * k->observable_soc;
    const float per_second = 1.0f / fminf(fmaxf(u->dt_s, 1e-3f), 60.0f);
    LANE_LOOP
    for (int c = 0; c < LANES; c++) {
        const float ocv = w[W_OCV * LANES + c], narrow = w[W_SLOPE * LANES + c], m = w[W_M * LANES + c],
            m0 = w[W_M0 * LANES + c];
        const float r0 = w[W_R0 * LANES + c], r1 = w[W_R1 * LANES + c], r2 = w[W_R2 * LANES + c],
            r3 = w[W_R3 * LANES + c], r4 = w[W_R4 * LANES + c], rct = w[W_RCT * LANES + c];
        const float slowest = slow_share * f[XD * LANES + c];
        const float w_var = w[W_W_STD * LANES + c] * w[W_W_STD * LANES + c] + slowest * slowest;
        const float knee_v = narrow * w[W_W_KNEE * LANES + c];
        const float knee_v2 = knee_v * knee_v;
        const float slow_v2 = w_var + knee_v2;
        /* SoC per ampere */
        const float gain = w[W_RATE * LANES + c] * (charging ? w[W_ETA * LANES + c] : 1.0f) * u->dt_s;
        float moved = gain * u->i_mid; /* SoC moved if the capacity is the nominal one: dz'/dq */
        const float bh = decay(fabsf(moved * w[W_GAMMA * LANES + c]));
        const int unknown = f[PZZ * LANES + c] > UNKNOWN;
        const float lever = unknown ? 0.0f : within(moved, -1.0f, 1.0f);
        const float z_var = unknown ? 0.0f : within(gain * gain * u->current_var, 0.0f, 1.0f);
        const float ah = 1.0f - bh;

        /* states at the end of the step */
        const float before = f[XZ * LANES + c];
        const float q = f[XQ * LANES + c];
        float low = f[XL * LANES + c] - moved * (1.0f - q);
        float z = before + low;
        low = low - (z - before);
        float va = f[XA * LANES + c], vb = f[XB * LANES + c], vc = f[XC * LANES + c], vd = f[XD * LANES + c];
        va += u->b1 * (r1 * u->i_mid - va);
        vb += u->b2 * (r2 * u->i_mid - vb);
        vc += u->b3 * (r3 * u->i_mid - vc);
        vd += u->b4 * (r4 * u->i_mid - vd);
        float h = f[XH * LANES + c], wv = f[XW * LANES + c], r = f[XR * LANES + c];
        h += bh * (u->towards - h);
        wv -= u->bw * wv;

        /* their sensitivities to the bias */
        float sa = f[SA * LANES + c], sb = f[SB * LANES + c], sc = f[SC * LANES + c], sd = f[SD * LANES + c];
        sa -= u->b1 * (r1 + sa);
        sb -= u->b2 * (r2 + sb);
        sc -= u->b3 * (r3 + sc);
        sd -= u->b4 * (r4 + sd);
        float sh = f[SH * LANES + c], sw = f[SW * LANES + c], sr = f[SR * LANES + c], sq = f[SQ * LANES + c];
        sh -= bh * sh;
        sw -= u->bw * sw;
        const float sz = within(f[SZ * LANES + c] + gain + lever * sq, -u->sz_max, u->sz_max);

        /* their covariance: F P F^T + noise */
        const float paa = f[PAA * LANES + c] * a11 + n1 * r1 * r1;
        const float pab = f[PAB * LANES + c] * a12;
        const float pbb = f[PBB * LANES + c] * a22 + n2 * r2 * r2;
        const float pac = f[PAC * LANES + c] * a13;
        const float pbc = f[PBC * LANES + c] * a23;
        const float pcc = f[PCC * LANES + c] * a33 + n3 * r3 * r3;
        const float pad = f[PAD * LANES + c] * a14;
        const float pbd = f[PBD * LANES + c] * a24;
        const float pcd = f[PCD * LANES + c] * a34;
        const float pdd = f[PDD * LANES + c] * a44 + n4 * r4 * r4;
        const float pah = f[PAH * LANES + c] * (a1 * ah);
        const float pbh = f[PBH * LANES + c] * (a2 * ah);
        const float pch = f[PCH * LANES + c] * (a3 * ah);
        const float pdh = f[PDH * LANES + c] * (a4 * ah);
        const float phh = f[PHH * LANES + c] * (ah * ah) + h_var * (bh * (2.0f - bh));
        const float paw = f[PAW * LANES + c] * a1w;
        const float pbw = f[PBW * LANES + c] * a2w;
        const float pcw = f[PCW * LANES + c] * a3w;
        const float pdw = f[PDW * LANES + c] * a4w;
        const float phw = f[PHW * LANES + c] * (ah * aw);
        const float pww = f[PWW * LANES + c] * aww + slow_v2 * nw;
        const float paq = f[PAQ * LANES + c] * a1;
        const float pbq = f[PBQ * LANES + c] * a2;
        const float pcq = f[PCQ * LANES + c] * a3;
        const float pdq = f[PDQ * LANES + c] * a4;
        const float phq = f[PHQ * LANES + c] * ah;
        const float pwq = f[PWQ * LANES + c] * aw;
        const float pzq0 = f[PZQ * LANES + c];
        const float prq = f[PRQ * LANES + c];
        const float pqq = f[PQQ * LANES + c];
        const float paz = f[PAZ * LANES + c] * a1 + lever * paq;
        const float pbz = f[PBZ * LANES + c] * a2 + lever * pbq;
        const float pcz = f[PCZ * LANES + c] * a3 + lever * pcq;
        const float pdz = f[PDZ * LANES + c] * a4 + lever * pdq;
        const float phz = f[PHZ * LANES + c] * ah + lever * phq;
        const float pwz = f[PWZ * LANES + c] * aw + lever * pwq;
        const float pzq = pzq0 + lever * pqq;
        const float pzz = f[PZZ * LANES + c] + lever * (pzq0 + pzq) + z_var;
        const float pzr = f[PZR * LANES + c] + lever * prq;
        const float par = f[PAR * LANES + c] * a1;
        const float pbr = f[PBR * LANES + c] * a2;
        const float pcr = f[PCR * LANES + c] * a3;
        const float pdr = f[PDR * LANES + c] * a4;
        const float phr = f[PHR * LANES + c] * ah;
        const float pwr = f[PWR * LANES + c] * aw;
        const float prr = f[PRR * LANES + c];

        const float more = (w[W_WIDE * LANES + c] - narrow) * at_most(pzz * per_wide2, 1.0f);
        const float slope = narrow + more;
        const float bend = 0.5f * more;
        const float bend_v2 = bend * bend * at_most(pzz, wide2);

        /* the voltage that the model expects */
        float er = 1.0f + expm1_small(r * 0.5f);
        er = er * er;
        const float drop = ((va + vb) + (vc + vd)) + (r0 * u->i_end + rct * u->i_ct);
        const float model = ocv + slope * (z - w[W_Z * LANES + c]) + m * h + m0 * u->sign + wv - er * drop;
        const float ok = w[W_OK * LANES + c];
        const float nu = (w[W_V * LANES + c] - model) * ok;
        model_v[c] = model;
        innovation[c] = ok > 0.0f ? nu : NAN;

        /* g = P h^T with h = (-er, -er, -er, -er, m, 1, slope, -er drop, 0) */
        const float ga = (m * pah + (slope * paz + paw)) - er * (drop * par + ((paa + pab) + (pac + pad)));
        const float gb = (m * pbh + (slope * pbz + pbw)) - er * (drop * pbr + ((pab + pbb) + (pbc + pbd)));
        const float gc = (m * pch + (slope * pcz + pcw)) - er * (drop * pcr + ((pac + pbc) + (pcc + pcd)));
        const float gd = (m * pdh + (slope * pdz + pdw)) - er * (drop * pdr + ((pad + pbd) + (pcd + pdd)));
        const float gh = (m * phh + (slope * phz + phw)) - er * (drop * phr + ((pah + pbh) + (pch + pdh)));
        const float gw = (m * phw + (slope * pwz + pww)) - er * (drop * pwr + ((paw + pbw) + (pcw + pdw)));
        const float gz = (m * phz + (slope * pzz + pwz)) - er * (drop * pzr + ((paz + pbz) + (pcz + pdz)));
        const float gr = (m * phr + (slope * pzr + pwr)) - er * (drop * prr + ((par + pbr) + (pcr + pdr)));
        const float gq = (m * phq + (slope * pzq + pwq)) - er * (drop * prq + ((paq + pbq) + (pcq + pdq)));
        const float told = (m * gh + slope * gz) + (gw - er * (((ga + gb) + (gc + gd)) + drop * gr));
        const float hb = er * (r0 + rct * u->di_ct)
            + (m * sh + sw + slope * sz - er * (((sa + sb) + (sc + sd)) + drop * sr));
        const float noise = (white_v2 + w_var * model_corr + (knee_v2 + bend_v2) * knee_corr) * per_second;
        const float spread = pww + slope * slope * pzz + m * m * phh
            + er * er * ((paa + pbb) + (pcc + pdd) + drop * drop * prr);
        float total = at_least(told, 0.0f) + at_least(noise, NOISE_MIN * spread);
        /* an outlier counts as if the noise were as large as it takes: believe it less, the more unlikely it is */
        total = at_least(total, nu * nu * PER_GATE2 - hb * hb * u->bias_var);
        const float inv = ok / total;

        const float ka = ga * inv;
        const float kb = gb * inv;
        const float kc = gc * inv;
        const float kd = gd * inv;
        const float kh = gh * inv;
        const float kw = gw * inv;
        const float kz = gz * inv;
        const float kr = gr * inv;
        const float kq = gq * inv;
        f[XA * LANES + c] = va + ka * nu;
        f[XB * LANES + c] = vb + kb * nu;
        f[XC * LANES + c] = vc + kc * nu;
        f[XD * LANES + c] = vd + kd * nu;
        f[XH * LANES + c] = h + kh * nu;
        f[XW * LANES + c] = wv + kw * nu;
        low = low + kz * nu;
        const float z1 = z + low;
        f[XL * LANES + c] = low - (z1 - z);
        f[XZ * LANES + c] = z1;
        f[XR * LANES + c] = r + kr * nu;
        f[XQ * LANES + c] = q + kq * nu;
        f[SA * LANES + c] = sa - ka * hb;
        f[SB * LANES + c] = sb - kb * hb;
        f[SC * LANES + c] = sc - kc * hb;
        f[SD * LANES + c] = sd - kd * hb;
        f[SH * LANES + c] = sh - kh * hb;
        f[SW * LANES + c] = sw - kw * hb;
        f[SZ * LANES + c] = sz - kz * hb;
        f[SR * LANES + c] = sr - kr * hb;
        f[SQ * LANES + c] = sq - kq * hb;
        f[PAB * LANES + c] = pab - ka * gb;
        f[PAC * LANES + c] = pac - ka * gc;
        f[PBC * LANES + c] = pbc - kb * gc;
        f[PAD * LANES + c] = pad - ka * gd;
        f[PBD * LANES + c] = pbd - kb * gd;
        f[PCD * LANES + c] = pcd - kc * gd;
        f[PAH * LANES + c] = pah - ka * gh;
        f[PBH * LANES + c] = pbh - kb * gh;
        f[PCH * LANES + c] = pch - kc * gh;
        f[PDH * LANES + c] = pdh - kd * gh;
        f[PAW * LANES + c] = paw - ka * gw;
        f[PBW * LANES + c] = pbw - kb * gw;
        f[PCW * LANES + c] = pcw - kc * gw;
        f[PDW * LANES + c] = pdw - kd * gw;
        f[PHW * LANES + c] = phw - kh * gw;
        f[PAZ * LANES + c] = paz - ka * gz;
        f[PBZ * LANES + c] = pbz - kb * gz;
        f[PCZ * LANES + c] = pcz - kc * gz;
        f[PDZ * LANES + c] = pdz - kd * gz;
        f[PHZ * LANES + c] = phz - kh * gz;
        f[PWZ * LANES + c] = pwz - kw * gz;
        f[PAR * LANES + c] = par - ka * gr;
        f[PBR * LANES + c] = pbr - kb * gr;
        f[PCR * LANES + c] = pcr - kc * gr;
        f[PDR * LANES + c] = pdr - kd * gr;
        f[PHR * LANES + c] = phr - kh * gr;
        f[PWR * LANES + c] = pwr - kw * gr;
        f[PZR * LANES + c] = pzr - kz * gr;
        f[PAQ * LANES + c] = paq - ka * gq;
        f[PBQ * LANES + c] = pbq - kb * gq;
        f[PCQ * LANES + c] = pcq - kc * gq;
        f[PDQ * LANES + c] = pdq - kd * gq;
        f[PHQ * LANES + c] = phq - kh * gq;
        f[PWQ * LANES + c] = pwq - kw * gq;
        f[PZQ * LANES + c] = pzq - kz * gq;
        f[PRQ * LANES + c] = prq - kr * gq;
        f[PAA * LANES + c] = at_least(paa - ka * ga, VARIANCE_MIN);
        f[PBB * LANES + c] = at_least(pbb - kb * gb, VARIANCE_MIN);
        f[PCC * LANES + c] = at_least(pcc - kc * gc, VARIANCE_MIN);
        f[PDD * LANES + c] = at_least(pdd - kd * gd, VARIANCE_MIN);
        f[PHH * LANES + c] = at_least(phh - kh * gh, VARIANCE_MIN);
        f[PWW * LANES + c] = at_least(pww - kw * gw, VARIANCE_MIN);
        f[PZZ * LANES + c] = at_least(pzz - kz * gz, VARIANCE_MIN);
        f[PRR * LANES + c] = at_least(prr - kr * gr, VARIANCE_MIN);
        f[PQQ * LANES + c] = at_least(pqq - kq * gq, VARIANCE_MIN);
        const float hb_inv = hb * inv;
        const int known = fabsf(hb_inv * nu) < INFINITY;
        w[W_INFO * LANES + c] += known ? hb * hb_inv : 0.0f;
        w[W_PULL * LANES + c] += known ? hb_inv * nu : 0.0f;
        const int seen = narrow * narrow * observable2 > slow_v2 + m * m * h_var;
        flag[c] = (seen ? 1 : 0) | (ok == 0.0f ? 2 : 0);
    }
    for (int c = 0; c < LANES; c++)
        flags[c] = (uint8_t)flag[c];
}

static void add_slow(float *restrict f_, float r_var, float q_var, float bias_rest, float bias_ratio)
{
    float *restrict f = ALIGNED(f_);
    const float keep = 1.0f - DECORRELATE;
    LANE_LOOP
    for (int c = 0; c < LANES; c++) {
        float sa = f[SA * LANES + c], sb = f[SB * LANES + c], sc = f[SC * LANES + c], sd = f[SD * LANES + c],
            sh = f[SH * LANES + c];
        float sw = f[SW * LANES + c], sz = f[SZ * LANES + c], sr = f[SR * LANES + c], sq = f[SQ * LANES + c];
        const float r_more = f[PRR * LANES + c] < (R_MAX * R_MAX) ? r_var : 0.0f;
        const float q_more = f[PQQ * LANES + c] < (Q_MAX * Q_MAX) ? q_var : 0.0f;
        const float sz_kept = sz * bias_ratio;
        sz = f[PZZ * LANES + c] < UNKNOWN ? sz : 0.0f;
        const float ba = bias_rest * sa, bb = bias_rest * sb, bc = bias_rest * sc, bd = bias_rest * sd,
            bh = bias_rest * sh;
        const float bw = bias_rest * sw, bz = bias_rest * sz, br = bias_rest * sr, bq = bias_rest * sq;
        f[PAB * LANES + c] = (f[PAB * LANES + c] + ba * sb) * keep;
        f[PAC * LANES + c] = (f[PAC * LANES + c] + ba * sc) * keep;
        f[PBC * LANES + c] = (f[PBC * LANES + c] + bb * sc) * keep;
        f[PAD * LANES + c] = (f[PAD * LANES + c] + ba * sd) * keep;
        f[PBD * LANES + c] = (f[PBD * LANES + c] + bb * sd) * keep;
        f[PCD * LANES + c] = (f[PCD * LANES + c] + bc * sd) * keep;
        f[PAH * LANES + c] = (f[PAH * LANES + c] + ba * sh) * keep;
        f[PBH * LANES + c] = (f[PBH * LANES + c] + bb * sh) * keep;
        f[PCH * LANES + c] = (f[PCH * LANES + c] + bc * sh) * keep;
        f[PDH * LANES + c] = (f[PDH * LANES + c] + bd * sh) * keep;
        f[PAW * LANES + c] = (f[PAW * LANES + c] + ba * sw) * keep;
        f[PBW * LANES + c] = (f[PBW * LANES + c] + bb * sw) * keep;
        f[PCW * LANES + c] = (f[PCW * LANES + c] + bc * sw) * keep;
        f[PDW * LANES + c] = (f[PDW * LANES + c] + bd * sw) * keep;
        f[PHW * LANES + c] = (f[PHW * LANES + c] + bh * sw) * keep;
        f[PAZ * LANES + c] = (f[PAZ * LANES + c] + ba * sz) * keep;
        f[PBZ * LANES + c] = (f[PBZ * LANES + c] + bb * sz) * keep;
        f[PCZ * LANES + c] = (f[PCZ * LANES + c] + bc * sz) * keep;
        f[PDZ * LANES + c] = (f[PDZ * LANES + c] + bd * sz) * keep;
        f[PHZ * LANES + c] = (f[PHZ * LANES + c] + bh * sz) * keep;
        f[PWZ * LANES + c] = (f[PWZ * LANES + c] + bw * sz) * keep;
        f[PAR * LANES + c] = (f[PAR * LANES + c] + ba * sr) * keep;
        f[PBR * LANES + c] = (f[PBR * LANES + c] + bb * sr) * keep;
        f[PCR * LANES + c] = (f[PCR * LANES + c] + bc * sr) * keep;
        f[PDR * LANES + c] = (f[PDR * LANES + c] + bd * sr) * keep;
        f[PHR * LANES + c] = (f[PHR * LANES + c] + bh * sr) * keep;
        f[PWR * LANES + c] = (f[PWR * LANES + c] + bw * sr) * keep;
        f[PZR * LANES + c] = (f[PZR * LANES + c] + bz * sr) * keep;
        f[PAQ * LANES + c] = (f[PAQ * LANES + c] + ba * sq) * keep;
        f[PBQ * LANES + c] = (f[PBQ * LANES + c] + bb * sq) * keep;
        f[PCQ * LANES + c] = (f[PCQ * LANES + c] + bc * sq) * keep;
        f[PDQ * LANES + c] = (f[PDQ * LANES + c] + bd * sq) * keep;
        f[PHQ * LANES + c] = (f[PHQ * LANES + c] + bh * sq) * keep;
        f[PWQ * LANES + c] = (f[PWQ * LANES + c] + bw * sq) * keep;
        f[PZQ * LANES + c] = (f[PZQ * LANES + c] + bz * sq) * keep;
        f[PRQ * LANES + c] = (f[PRQ * LANES + c] + br * sq) * keep;
        f[PAA * LANES + c] += ba * sa;
        f[PBB * LANES + c] += bb * sb;
        f[PCC * LANES + c] += bc * sc;
        f[PDD * LANES + c] += bd * sd;
        f[PHH * LANES + c] += bh * sh;
        f[PWW * LANES + c] += bw * sw;
        f[PZZ * LANES + c] += bz * sz;
        f[PRR * LANES + c] += br * sr + r_more;
        f[PQQ * LANES + c] += bq * sq + q_more;
        f[SA * LANES + c] = sa * bias_ratio;
        f[SB * LANES + c] = sb * bias_ratio;
        f[SC * LANES + c] = sc * bias_ratio;
        f[SD * LANES + c] = sd * bias_ratio;
        f[SH * LANES + c] = sh * bias_ratio;
        f[SW * LANES + c] = sw * bias_ratio;
        f[SZ * LANES + c] = sz_kept;
        f[SR * LANES + c] = sr * bias_ratio;
        f[SQ * LANES + c] = sq * bias_ratio;
    }
}

static void share_bias(float *restrict f_, float *restrict soc, float *restrict soc_std, float step_b, float bias_var,
                       float floor2)
{
    float *restrict f = ALIGNED(f_);
    LANE_LOOP
    for (int c = 0; c < LANES; c++) {
        f[XA * LANES + c] += f[SA * LANES + c] * step_b;
        f[XB * LANES + c] += f[SB * LANES + c] * step_b;
        f[XC * LANES + c] += f[SC * LANES + c] * step_b;
        f[XD * LANES + c] += f[SD * LANES + c] * step_b;
        f[XW * LANES + c] += f[SW * LANES + c] * step_b;
        f[XH * LANES + c] = within(f[XH * LANES + c] + f[SH * LANES + c] * step_b, -1.0f, 1.0f);
        f[XR * LANES + c] = within(f[XR * LANES + c] + f[SR * LANES + c] * step_b, -R_MAX, R_MAX);
        f[XQ * LANES + c] = within(f[XQ * LANES + c] + f[SQ * LANES + c] * step_b, -Q_MAX, Q_MAX);
        const float sz = f[SZ * LANES + c];
        float z = f[XZ * LANES + c] + sz * step_b;
        const float limited = within(z, Z_MIN, Z_MAX);
        float low = f[XL * LANES + c];
        f[XL * LANES + c] = limited == z ? low : 0.0f;
        f[XZ * LANES + c] = limited;
        soc[c] = within(limited, 0.0f, 1.0f);
        soc_std[c] = sqrtf(f[PZZ * LANES + c] + sz * sz * bias_var + floor2);
    }
}

/* One sample of a string whose current, voltages and temperatures are all good. */
static bool estimator_step(const struct head *restrict k, const float *restrict nodes,
                           struct shared *restrict sh, float *restrict blocks, float *restrict out,
                           uint8_t *restrict flags, const float *restrict cell_v, const uint8_t *restrict quality,
                           const float *restrict cell_degc, int64_t n, int64_t n_lanes, float current_a, float dt_s)
{
    float w[W_END * LANES] __attribute__((aligned(64)));
    int32_t index[LANES] __attribute__((aligned(64)));
    struct step u;
    u.dt_s = dt_s;
    u.i_mid = (sh->steps > 0 ? 0.5f * (current_a + sh->last_a) : current_a) - sh->bias_a;
    u.i_end = current_a - sh->bias_a;
    sh->last_a = current_a;
    if (fabsf(u.i_end) > 0.01f * k->capacity_ah)
        sh->sign = u.i_end > 0.0f ? 1.0f : -1.0f;
    const float bent = u.i_end / k->bend_a, rc_std = k->rc_noise * u.i_mid;
    sh->slow_s += dt_s;
    const bool slow = sh->slow_s >= k->slow_period_s;
    float slow_h = 0.0f, bias_ratio = 1.0f, bias_rest = 0.0f;
    if (slow) {
        slow_h = sh->slow_s / 3600.0f;
        sh->slow_s = 0.0f;
        const float grown = sh->bias_var + k->bias_walk * k->bias_walk * slow_h;
        if (grown > 0.0f) {
            bias_ratio = sh->bias_var / grown;
            bias_rest = sh->bias_var * (1.0f - bias_ratio);
        }
        sh->bias_var = grown;
    }
    u.i_ct = k->bend_a * ours_asinhf(bent);
    u.di_ct = 1.0f / sqrtf(1.0f + bent * bent);
    u.towards = u.i_mid > 0.0f ? -1.0f : 1.0f;
    u.sign = sh->sign;
    u.b1 = one_minus_exp(dt_s / k->tau1_s);
    u.b2 = one_minus_exp(dt_s / k->tau2_s);
    u.b3 = one_minus_exp(dt_s / k->tau3_s);
    u.b4 = one_minus_exp(dt_s / k->tau4_s);
    const float moved = k->rate * dt_s * u.i_mid;
    u.bw = one_minus_exp(dt_s / k->tau_w_s + fabsf(moved) / k->soc_w);
    u.current_var = k->current_std * k->current_std * fmaxf(dt_s, 1.0f);
    u.rc_var = rc_std * rc_std;
    u.bias_var = sh->bias_var;
    u.sz_max = 1.0f / sqrtf(sh->bias_var);
    for (int c = 0; c < LANES; c++)
        w[W_INFO * LANES + c] = w[W_PULL * LANES + c] = 0.0f, w[W_ALL_OK * LANES + c] = 1.0f;
    for (int64_t first = 0; first < n_lanes; first += LANES) {
        float *restrict f = blocks + first * BLOCK_ROWS;
        const int64_t here = n - first < LANES ? n - first : LANES;
        gather(w, index, f, cell_v + first, quality + first, cell_degc + first, here, k, moved);
        if (slow)
            add_slow(f, k->r_walk * k->r_walk * slow_h, k->q_walk * k->q_walk * slow_h, bias_rest, bias_ratio);
        look_up(w, index, nodes, f + 3 * BLOCK_ROWS * LANES);
        update(f, w, flags + first, out + 2 * n_lanes + first, out + 3 * n_lanes + first, k, &u);
    }
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int c = 0; c < half; c++) {
            w[W_INFO * LANES + c] += w[W_INFO * LANES + half + c];
            w[W_PULL * LANES + c] += w[W_PULL * LANES + half + c];
            w[W_ALL_OK * LANES + c] = at_most(w[W_ALL_OK * LANES + c], w[W_ALL_OK * LANES + half + c]);
        }
    const bool all_ok = w[W_ALL_OK * LANES] == 1.0f;
    const float info = w[W_INFO * LANES], pull = w[W_PULL * LANES];
    const float share = 1.0f / (1.0f + (float)(n - 1) * k->common);
    sh->bias_var = sh->bias_var / (1.0f + sh->bias_var * info * share);
    const float step_b = sh->bias_var * pull * share;
    sh->bias_a += step_b;
    for (int64_t first = 0; first < n_lanes; first += LANES) {
        share_bias(blocks + first * BLOCK_ROWS, out + first, out + n_lanes + first, step_b, sh->bias_var,
                   k->soc_floor * k->soc_floor);
    }
    sh->steps++;
    return all_ok;
}

/* `steps` samples of the strings first..last, one record of memory each; the current changes its sign every step. */
bool filter_racks(const struct head *k, const float *nodes, char *states, int64_t state_size,
                  int64_t at_blocks, int64_t at_out, int64_t at_flags, const float *cell_v, const uint8_t *quality,
                  const float *cell_degc, int64_t n, float current_a, float dt_s, int64_t first, int64_t last,
                  int64_t steps)
{
    const int64_t n_lanes = (n + LANES - 1) / LANES * LANES;
    bool all_ok = true;
    for (int64_t s = 0; s < steps; s++)
        for (int64_t r = first; r < last; r++) {
            char *state = states + r * state_size;
            all_ok &= estimator_step(k, nodes, (struct shared *)state, (float *)(state + at_blocks),
                                     (float *)(state + at_out), (uint8_t *)(state + at_flags),
                                     cell_v + r * n, quality + r * n,
                                     cell_degc + r * n, n, n_lanes, s % 2 ? -current_a : current_a, dt_s);
        }
    return all_ok;
}

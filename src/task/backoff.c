#include "task/backoff.h"

int64_t td_backoff_ns(int64_t base_ns, int64_t max_ns, uint32_t attempt, uint64_t seed)
{
    int64_t full = base_ns;
    for (uint32_t i = 1; i < attempt && full < max_ns; i++)
        full = full > max_ns / 2 ? max_ns : full * 2;
    if (full > max_ns)
        full = max_ns;
    /* splitmix64: neighbouring seeds give unrelated numbers. */
    uint64_t z = seed + 0x9e3779b97f4a7c15u * (attempt + 1u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    uint64_t half = (uint64_t)full / 2;
    return (int64_t)(half + (half ? z % (half + 1) : 0));
}

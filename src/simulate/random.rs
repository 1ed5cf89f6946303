//! Randomness from a seed: the same numbers in every version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seeded source of choices. The mapping to ranges is our own, so that a
/// seed means the same whatever version the libraries have.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Evenly from 0 to 1, without 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly from 0 to `end`, without `end`, which is at least 1.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(end)) >> 32) as u32
    }

    /// Once in `1 / probability` times.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Evenly between two multiples of a time.
    pub(super) fn times(&mut self, ms: i64, from: f64, to: f64) -> i64 {
        (ms as f64 * (from + (to - from) * self.unit())).round() as i64
    }

    /// The time to the next of events that happen `mean_ms` apart on average,
    /// independently of each other.
    pub(super) fn wait(&mut self, mean_ms: i64) -> i64 {
        (-(1.0 - self.unit()).ln() * mean_ms as f64).round() as i64
    }
}

/// The number whose bits [`mix`] has spread so.
pub(super) fn unmix(mut bits: u64) -> u64 {
    bits ^= bits >> 31 ^ bits >> 62;
    bits = bits.wrapping_mul(0x3196_42b2_d24d_8ec3);
    bits ^= bits >> 27 ^ bits >> 54;
    bits = bits.wrapping_mul(0x96de_1b17_3f11_9089);
    bits ^= bits >> 30 ^ bits >> 60;
    bits.wrapping_sub(0x9e37_79b9_7f4a_7c15)
}

/// Spreads the bits of a number, after splitmix64.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

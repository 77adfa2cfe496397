//! The key of each operation: planned before the clock starts, the same for every subject.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks below the number of keys, which fits in 31 bits"
)]

use fastrand::Rng;

/// Marks an operation of a mixed plan that writes.
pub(crate) const WRITES: u32 = 1 << 31;

/// Most keys that a plan can name.
const KEYS_MAX: u64 = WRITES as u64 - 1;

/// The skew of the zipfian choice, as in YCSB (Cooper et al., "Benchmarking cloud serving systems
/// with YCSB", 2010).
const THETA: f64 = 0.99;

/// A choice of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// All keys equally often.
    Uniform,
    /// Few keys often. Which keys is independent of the order of their puts.
    Zipfian,
}

/// Makes the plans of one run.
#[derive(Debug)]
pub(crate) struct Planner {
    keys: u64,
    seed: u64,
    zipf: Option<Zipf>,
}

impl Planner {
    /// A planner for keys `0..keys`.
    pub(crate) fn new(keys: u64, seed: u64) -> Self {
        Planner { keys: keys.clamp(1, KEYS_MAX), seed, zipf: None }
    }

    /// The operations of each thread, `operations` in all. A random share of them carries the mark
    /// [`WRITES`]. Different phases have different plans.
    pub(crate) fn plans(
        &mut self,
        phase: u64,
        access: Access,
        operations: u64,
        threads: u64,
        write_share: f64,
    ) -> Vec<Vec<u32>> {
        let (keys, seed) = (self.keys, self.seed);
        if access == Access::Zipfian && self.zipf.is_none() {
            self.zipf = Some(Zipf::new(keys, seed));
        }
        let zipf = self.zipf.as_ref().filter(|_| access == Access::Zipfian);
        let plan = |thread: u64| {
            let mut rng = Rng::with_seed(seed ^ (phase << 40) ^ (thread << 48));
            let count = (thread + 1) * operations / threads - thread * operations / threads;
            (0..count)
                .map(|_| {
                    let index = match zipf {
                        None => rng.u64(..keys) as u32,
                        Some(zipf) => zipf.next(&mut rng),
                    };
                    if write_share > 0.0 && rng.f64() < write_share { index | WRITES } else { index }
                })
                .collect()
        };
        (0..threads).map(plan).collect()
    }
}

/// Ranks by the method of Gray et al., "Quickly generating billion-record synthetic databases",
/// 1994, section 3.2. Each rank has a key of its own.
#[derive(Debug)]
struct Zipf {
    of_rank: Vec<u32>,
    keys: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(keys: u64, seed: u64) -> Self {
        let mut of_rank: Vec<u32> = (0..keys as u32).collect();
        Rng::with_seed(!seed).shuffle(&mut of_rank);
        let zeta_of = |count: u64| (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let zeta = zeta_of(keys);
        let keys = keys as f64;
        let eta = (1.0 - (2.0 / keys).powf(1.0 - THETA)) / (1.0 - zeta_of(2) / zeta);
        Zipf { of_rank, keys, alpha: 1.0 / (1.0 - THETA), zeta, eta }
    }

    fn next(&self, rng: &mut Rng) -> u32 {
        let uniform = rng.f64();
        let scaled = uniform * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(THETA) {
            1
        } else {
            (self.keys * (self.eta * uniform - self.eta + 1.0).powf(self.alpha)) as usize
        };
        self.of_rank.get(rank.min(self.of_rank.len() - 1)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn plans_share_the_operations_and_name_only_existing_keys() {
        for access in [Access::Uniform, Access::Zipfian] {
            for keys in [1, 2, 1000] {
                let plans = Planner::new(keys, 5).plans(1, access, 1001, 2, 0.5);
                assert_eq!(plans.iter().map(Vec::len).sum::<usize>(), 1001);
                assert!(plans.iter().flatten().all(|entry| u64::from(entry & !WRITES) < keys));
                let writes = plans.iter().flatten().filter(|entry| *entry & WRITES != 0).count();
                assert!((400..600).contains(&writes), "{writes}");
            }
        }
    }

    #[test]
    fn the_same_phase_gives_the_same_plan_and_others_differ() {
        let plans = |phase| Planner::new(1000, 5).plans(phase, Access::Zipfian, 100, 2, 0.0);
        assert_eq!(plans(1), plans(1));
        assert_ne!(plans(1), plans(2));
        assert_ne!(plans(1)[0], plans(1)[1]);
    }

    #[test]
    fn zipfian_keys_follow_their_law() {
        let plan = Planner::new(1000, 5).plans(1, Access::Zipfian, 200_000, 1, 0.0).concat();
        let mut counts: HashMap<u32, f64> = HashMap::new();
        for index in plan {
            *counts.entry(index).or_default() += 1.0 / 200_000.0;
        }
        let mut shares: Vec<f64> = counts.into_values().collect();
        shares.sort_by(|a, b| b.total_cmp(a));
        let zeta: f64 = (1..=1000u32).map(|rank| f64::from(rank).powf(-THETA)).sum();
        assert!((shares[0] - 1.0 / zeta).abs() < 0.01, "{}", shares[0]);
        let tenth: f64 = shares[..100].iter().sum();
        let expected: f64 = (1..=100u32).map(|rank| f64::from(rank).powf(-THETA) / zeta).sum();
        assert!((tenth - expected).abs() < 0.03, "{tenth} {expected}");
    }
}

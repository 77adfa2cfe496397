use super::*;
use crate::compaction::{Never, Usage};
use std::time::Duration;

const FULL: u64 = 1000;

/// Without slack.
const GREEDY: Greedy = Greedy {
    disk_utilization_min: 0.6,
    disk_slack_segments: 0,
    idle_disk_utilization_min: 0.75,
    memory_utilization_min: 0.9,
    busy_memory_utilization_min: 0.9,
    victims_max: 8,
};
const COST_BENEFIT: CostBenefit = CostBenefit { targets: GREEDY };

fn segment(id: u64, live: u64, age_s: u64) -> SegmentStats {
    SegmentStats {
        id: SegmentId::new(id),
        live_bytes: live,
        tombstone_bytes: 0,
        dead_bytes: FULL - live,
        memory_bytes: FULL,
        disk_bytes: FULL,
        age: Duration::from_secs(age_s),
    }
}

/// With so many of the live bytes in tombstones instead.
fn with_tombstones(segment: SegmentStats, bytes: u64) -> SegmentStats {
    SegmentStats { tombstone_bytes: bytes, live_bytes: segment.live_bytes - bytes, ..segment }
}

fn levelled(policy: &dyn CompactionPolicy, segments: &[SegmentStats]) -> Option<(CompactionLevel, Vec<u64>)> {
    levelled_on(Occasion::Busy, policy, segments)
}

fn levelled_on(
    occasion: Occasion,
    policy: &dyn CompactionPolicy,
    segments: &[SegmentStats],
) -> Option<(CompactionLevel, Vec<u64>)> {
    with_outputs_of(FULL, occasion, policy, segments)
}

fn with_outputs_of(
    output_bytes: u64,
    occasion: Occasion,
    policy: &dyn CompactionPolicy,
    segments: &[SegmentStats],
) -> Option<(CompactionLevel, Vec<u64>)> {
    let view = CompactionView {
        segments,
        segment_bytes: FULL,
        output_bytes,
        memory: Usage::default(),
        disk: Usage::default(),
        slots: Usage { used: segments.len() as u64, limit: Some(1 << 16) },
        occasion,
    };
    let plan = policy.plan(&view)?;
    Some((plan.level, plan.victims.iter().map(|id| id.get()).collect()))
}

fn plan(policy: &dyn CompactionPolicy, segments: &[SegmentStats]) -> Option<Vec<u64>> {
    levelled(policy, segments)
        .filter(|(level, _)| *level == CompactionLevel::Disk)
        .map(|(_, victims)| victims)
}

#[test]
fn a_few_dead_segments_stay_until_the_store_is_idle() {
    let greedy = Greedy::default();
    assert_eq!((greedy.disk_slack_segments, greedy.victims_max), (16, 8));
    let segments: Vec<SegmentStats> = (1..=17).map(|id| segment(id, 0, 0)).collect();
    for policy in [&greedy as &dyn CompactionPolicy, &CostBenefit::default()] {
        let few = &segments[..16];
        let (level, victims) = levelled(policy, few).unwrap();
        assert_eq!((level, victims.len()), (CompactionLevel::Memory, 8));
        assert_eq!(plan(policy, &segments).unwrap().len(), 17);
        for occasion in [Occasion::OpenOrClose, Occasion::Idle] {
            let (level, victims) = levelled_on(occasion, policy, few).unwrap();
            assert_eq!((level, victims.len()), (CompactionLevel::Disk, 16));
        }
    }
}

#[test]
fn an_idle_store_is_compacted_further() {
    for policy in [&GREEDY as &dyn CompactionPolicy, &COST_BENEFIT] {
        let full = [segment(1, 700, 0), segment(2, 750, 0)];
        for occasion in [Occasion::Busy, Occasion::OpenOrClose] {
            let (level, _) = levelled_on(occasion, policy, &full).unwrap();
            assert_eq!(level, CompactionLevel::Memory);
        }
        let idle = levelled_on(Occasion::Idle, policy, &full);
        assert_eq!(idle, Some((CompactionLevel::Disk, vec![1, 2])));
        let fuller = [segment(1, 750, 0), segment(2, 751, 0)];
        let idle = levelled_on(Occasion::Idle, policy, &fuller);
        assert_eq!(idle.map(|(level, _)| level), Some(CompactionLevel::Memory));
    }
    // A policy that leaves the disk alone does so in an idle store, too.
    let never_on_disk = Greedy { disk_utilization_min: 0.0, ..GREEDY };
    let idle = levelled_on(Occasion::Idle, &never_on_disk, &[segment(1, 10, 0)]);
    assert_eq!(idle.map(|(level, _)| level), Some(CompactionLevel::Memory));
}

#[test]
fn fewer_records_are_copied_in_memory_while_changes_come() {
    for policy in [&Greedy::default() as &dyn CompactionPolicy, &CostBenefit::default()] {
        for (live, on_busy, on_idle) in
            [(699, true, true), (701, false, true), (937, false, true), (951, false, false)]
        {
            let segments = [segment(1, live, 0)];
            let in_memory = |occasion| {
                let plan = levelled_on(occasion, policy, &segments);
                plan.is_some_and(|(level, _)| level == CompactionLevel::Memory)
            };
            assert_eq!(in_memory(Occasion::Busy), on_busy, "{live}");
            // On disk, first.
            let is_full = live >= 750;
            assert_eq!(in_memory(Occasion::Idle), on_idle && is_full, "{live}");
        }
    }
}

#[test]
fn never_plans_nothing() {
    assert_eq!(plan(&Never, &[segment(1, 0, 9)]), None);
}

#[test]
fn greedy_takes_the_emptiest_while_the_whole_is_too_empty() {
    let greedy = Greedy { disk_utilization_min: 0.75, victims_max: 3, ..GREEDY };
    assert_eq!(plan(&greedy, &[]), None);
    // 0.75 of the whole is enough, with any distribution over segments.
    assert_eq!(plan(&greedy, &[segment(1, 1000, 0), segment(2, 500, 0)]), None);
    assert_eq!(plan(&greedy, &[segment(1, 999, 0), segment(2, 500, 0)]), Some(vec![2, 1]));
    // As many as make up for the missing bytes, and free a segment.
    let segments = [segment(1, 900, 0), segment(2, 450, 0), segment(3, 400, 0), segment(4, 1000, 0)];
    assert_eq!(plan(&greedy, &segments), Some(vec![3, 2]));
    let emptier = [segment(1, 900, 0), segment(2, 450, 0), segment(3, 400, 0), segment(4, 600, 0)];
    assert_eq!(plan(&greedy, &emptier), Some(vec![3, 2]));
    let greedier = Greedy { disk_utilization_min: 0.99, ..greedy };
    assert_eq!(plan(&greedier, &emptier), Some(vec![3, 2, 4]));
    // A segment without dead records is no victim, even if its file is longer than its records.
    let padded = SegmentStats { dead_bytes: 0, ..segment(5, 300, 0) };
    assert_eq!(plan(&greedy, &[padded]), None);
}

#[test]
fn what_is_dead_altogether_goes_at_once() {
    let small = SegmentStats { disk_bytes: 10, memory_bytes: 10, dead_bytes: 10, ..segment(4, 0, 0) };
    let segments = [segment(1, 1000, 0), segment(2, 900, 0), small];
    assert_eq!(plan(&GREEDY, &segments), Some(vec![4]));
    let never_on_disk = Greedy { disk_utilization_min: 0.0, ..GREEDY };
    assert_eq!(plan(&never_on_disk, &segments), None);
}

#[test]
fn tombstones_are_kept_and_still_ask_for_the_dead_to_go() {
    // Nothing is live, and each segment is nearly full of tombstones that the dead in the other
    // keep.
    let held = |id| with_tombstones(segment(id, 950, 0), 950);
    assert_eq!(plan(&GREEDY, &[held(1), held(2)]), Some(vec![1, 2]));
    assert!((held(1).disk_utilization() - 0.95).abs() < 1e-9);
    assert!((held(1).memory_utilization() - 0.95).abs() < 1e-9);
    // Where the dead are gone, there is nothing left to do for those that hold tombstones only.
    let pure = with_tombstones(segment(3, 1000, 0), 1000);
    assert_eq!(plan(&GREEDY, &[pure, held(1)]), Some(vec![1]));
    assert_eq!(plan(&GREEDY, &[pure]), None);
}

#[test]
fn memory_is_compacted_where_the_disk_is_well() {
    for policy in [&GREEDY as &dyn CompactionPolicy, &COST_BENEFIT] {
        let segments = [segment(1, 890, 0), segment(2, 850, 0), segment(3, 910, 0)];
        assert_eq!(levelled(policy, &segments), Some((CompactionLevel::Memory, vec![2])));
        assert_eq!(levelled(policy, &[segment(1, 800, 0), segment(2, 1000, 0)]), None);
        // A segment without an image, with a right-sized one, or with little to gain is left
        // out.
        let cold = SegmentStats { memory_bytes: 0, ..segment(1, 700, 0) };
        let fitting = SegmentStats { memory_bytes: 700, ..segment(2, 700, 0) };
        let small = SegmentStats { memory_bytes: 70, disk_bytes: 20, dead_bytes: 10, ..segment(3, 10, 0) };
        assert_eq!(levelled(policy, &[cold, fitting, small]), None);
        // Tombstones are kept in memory, too: they have to go to disk again.
        assert_eq!(levelled(policy, &[with_tombstones(segment(4, 950, 0), 100)]), None);
    }
}

#[test]
fn policies_come_to_an_end() {
    let mut rng = 1_u64;
    let mut next = |max: u64| {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (rng >> 33) % max
    };
    for policy in [&GREEDY as &dyn CompactionPolicy, &COST_BENEFIT] {
        for _ in 0..200 {
            let mut segments: Vec<SegmentStats> = (0..next(40))
                .map(|id| {
                    let survivors = next(FULL + 1);
                    let tombstones = next(survivors + 1);
                    with_tombstones(segment(id, survivors, next(100)), tombstones)
                })
                .collect();
            let mut rounds = 0;
            while let Some((level, victims)) = levelled(policy, &segments) {
                rounds += 1;
                assert!(rounds < 200, "{segments:?}");
                let (gone, mut left): (Vec<SegmentStats>, Vec<SegmentStats>) =
                    segments.iter().partition(|segment| victims.contains(&segment.id.get()));
                if level == CompactionLevel::Memory {
                    left.extend(
                        gone.iter().map(|segment| SegmentStats {
                            memory_bytes: segment.survivor_bytes(),
                            ..*segment
                        }),
                    );
                } else {
                    let live: u64 = gone.iter().map(|segment| segment.live_bytes).sum();
                    let all: u64 = gone.iter().map(SegmentStats::survivor_bytes).sum();
                    let id = 1000 * (rounds + 1);
                    left.extend((0..all.div_ceil(FULL)).map(|at| {
                        let bytes = (all - at * FULL).min(FULL);
                        let live = live.saturating_sub(at * FULL).min(bytes);
                        let output = segment(id + at, bytes, 0);
                        let whole = SegmentStats { disk_bytes: bytes, memory_bytes: bytes, ..output };
                        with_tombstones(SegmentStats { dead_bytes: 0, ..whole }, bytes - live)
                    }));
                }
                segments = left;
            }
        }
    }
}

/// A small store with a slow writer has segments that are much smaller than a full one.
#[test]
fn small_images_are_compacted_while_changes_come_once_half_of_them_is_dead() {
    for policy in [&Greedy::default() as &dyn CompactionPolicy, &CostBenefit::default()] {
        for (live, is_compacted) in [(9, true), (10, true), (11, false)] {
            let small =
                |id| SegmentStats { live_bytes: live, memory_bytes: 20, disk_bytes: 20, ..segment(id, 0, 0) };
            let plan = levelled(policy, &[small(1), small(2)]);
            let in_memory = (CompactionLevel::Memory, vec![1, 2]);
            assert_eq!(plan, is_compacted.then_some(in_memory), "{live}");
        }
    }
}

#[test]
fn many_empty_segments_do_not_stay_while_changes_come() {
    for policy in [&Greedy::default() as &dyn CompactionPolicy, &CostBenefit::default()] {
        let empty = |id| SegmentStats { disk_bytes: 400, memory_bytes: 0, ..segment(id, 0, 0) };
        for (count, are_removed) in [(31, false), (32, true)] {
            let segments: Vec<SegmentStats> = (1..=count).map(empty).collect();
            let victims = plan(policy, &segments).map_or(0, |victims| victims.len() as u64);
            assert_eq!(victims, if are_removed { count } else { 0 });
        }
    }
}

/// Otherwise a small store with a slow writer would merge the same files again and again.
#[test]
fn outputs_are_not_merged_into_outputs_of_the_same_length() {
    for policy in [&Greedy::default() as &dyn CompactionPolicy, &CostBenefit::default()] {
        for output_bytes in [FULL, FULL / 5, FULL / 100] {
            let full = |id| SegmentStats {
                live_bytes: output_bytes,
                memory_bytes: output_bytes,
                disk_bytes: output_bytes,
                ..segment(id, 0, 0)
            };
            let segments: Vec<SegmentStats> = (1..=16).map(full).collect();
            assert_eq!(with_outputs_of(output_bytes, Occasion::Busy, policy, &segments), None);
            let quarter =
                |id| SegmentStats { live_bytes: output_bytes / 4, disk_bytes: output_bytes / 4, ..full(id) };
            let segments: Vec<SegmentStats> = (1..=8).map(quarter).collect();
            let merged = with_outputs_of(output_bytes, Occasion::Busy, policy, &segments);
            assert!(
                merged.is_some_and(|(level, victims)| level == CompactionLevel::Disk && victims.len() == 8)
            );
        }
    }
}

#[test]
fn small_segments_are_merged_four_to_one_or_not_at_all() {
    let small = |id, bytes| SegmentStats {
        disk_bytes: bytes,
        memory_bytes: bytes,
        dead_bytes: 0,
        ..segment(id, bytes, 0)
    };
    let three = [small(1, 10), small(2, 250), small(3, 20)];
    assert_eq!(plan(&GREEDY, &three), None);
    let with = |last| [three[0], three[1], three[2], last];
    assert_eq!(plan(&GREEDY, &with(small(4, 251))), None);
    assert_eq!(plan(&GREEDY, &with(small(4, 250))), Some(vec![1, 3, 2, 4]));
    let two_outputs: Vec<_> = (1..=5).map(|id| small(id, 250)).collect();
    assert_eq!(plan(&GREEDY, &two_outputs), None);
}

#[test]
fn cost_benefit_prefers_old_segments_over_slightly_emptier_young_ones() {
    let one = CostBenefit { targets: Greedy { victims_max: 1, disk_utilization_min: 0.9, ..GREEDY } };
    let segments = [segment(1, 500, 1), segment(2, 700, 100), segment(3, 350, 1), segment(4, 950, 400)];
    assert_eq!(plan(&one, &segments), Some(vec![2]));
    let younger = SegmentStats { age: Duration::from_secs(1), ..segments[1] };
    assert_eq!(plan(&one, &[segments[0], younger, segments[2], segments[3]]), Some(vec![3]));
    // The same segment costs more when its survivors must be read from disk.
    let cold = SegmentStats { memory_bytes: 0, ..segment(5, 500, 10) };
    assert!(CostBenefit::rank(&cold) > CostBenefit::rank(&segment(5, 500, 10)));
}

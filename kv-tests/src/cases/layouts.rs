//! Damage to closed stores of many shapes, at the places that matter and at random ones.

use super::case;
use super::places::places;
use super::stored::{Stored, another_store, enough, explain, flipped};
use crate::rig::{Policy, Setup};
use crate::workload::{Op, random_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use fastrand::Rng;
use kv_core::Scale;
use kv_core::parts::Reserve;
use std::path::{Path, PathBuf};

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "corruption::required_kv658_flipped_bits_in_every_layout",
        Level::Required,
        SIMULATED,
        "A flipped bit is noticed in stores of every policy, scale and size.",
        flipped_bits,
    ),
    case(
        "corruption::required_kv659_zeroed_blocks",
        Level::Required,
        SIMULATED,
        "Zeroed bytes, blocks, tails and files are noticed.",
        zeroed_blocks,
    ),
    case(
        "corruption::required_kv660_cut_tails",
        Level::Required,
        SIMULATED,
        "After an orderly close a cut at any end of a record is noticed, in a store of a few changes, too.",
        cut_tails,
    ),
    case(
        "corruption::required_kv661_shifted_and_repeated_bytes",
        Level::Required,
        SIMULATED,
        "Bytes that were inserted, removed, repeated or appended are noticed, or change nothing.",
        shifted_and_repeated_bytes,
    ),
    case(
        "corruption::required_kv662_swapped_files_of_equal_length",
        Level::Required,
        SIMULATED,
        "Swapped or duplicated files of equal length are noticed, or change nothing.",
        swapped_files_of_equal_length,
    ),
    case(
        "corruption::required_kv663_swapped_blocks",
        Level::Required,
        SIMULATED,
        "Blocks that were exchanged or copied within a file and between files are noticed, or change nothing.",
        swapped_blocks,
    ),
    case(
        "corruption::required_kv664_foreign_files_in_every_layout",
        Level::Required,
        SIMULATED,
        "A file of another store with the same history is noticed, or changes nothing.",
        foreign_files,
    ),
    case(
        "corruption::required_kv665_damage_before_a_durable_change",
        Level::Required,
        SIMULATED,
        "After a crash damage before a change of a later sync is Corruption, and not the end of the log.",
        super::after_crash::damage_before_a_durable_change,
    ),
];

/// A store of some shape.
type Layout = (&'static str, Stored);

/// Closed stores of different shapes.
fn layouts(context: &Context) -> Result<Vec<Layout>, Failure> {
    let mut rng = context.rng();
    let put = |key, len| Op::Put { key, len };
    let few = vec![
        put(1, 40),
        put(2, 0),
        Op::Batch(vec![(3, Some(9)), (1, None)]),
        put(2, 30),
        Op::Delete { key: 3 },
    ];
    // Records of equal length, and so files of equal length.
    let mut equal = Vec::new();
    for round in 0..6 {
        equal.extend((0..15).map(|key| put(key + 15 * (round % 2), 64)));
        equal.push(Op::Sync);
    }
    let mut large: Vec<Op> = (0..20).map(|key| put(key, 4500)).collect();
    large.extend([Op::Sync, Op::Delete { key: 4 }, put(5, 100), Op::Compact, put(6, 2000)]);
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.extend(random_ops(&mut rng, 25, 12));
        sessions.extend([put(20, 50), Op::Reopen]);
    }
    sessions.extend([put(21, 50), Op::Delete { key: 20 }]);
    let tiny = |policy| Setup::tiny(context, policy);
    let normal = Setup { scale: Scale::Normal, ..tiny(Policy::Manual) };
    Ok(vec![
        ("a few changes, each durable", Stored::after(context, tiny(Policy::Always), few)?),
        ("records of equal length", Stored::after(context, tiny(Policy::MaxLogSize(300)), equal)?),
        ("large values", Stored::after(context, tiny(Policy::MaxLogSize(300)), large)?),
        ("several sessions", Stored::after(context, tiny(Policy::Always), sessions.clone())?),
        ("normal scale", Stored::after(context, normal, sessions)?),
    ])
}

/// How many damages of a kind a case makes in a layout. Opening units for real work takes longer.
fn budget(context: &Context, stored: &Stored, most: u64) -> usize {
    let most = if stored.setup.scale == Scale::Tiny { most } else { most / 4 };
    usize::try_from(context.scaled(most)).unwrap_or(usize::MAX)
}

/// Damages each file of every layout in the ways of `ways`, and checks each.
fn each_damage(
    context: &Context,
    most: u64,
    ways: impl Fn(&[u8], &mut Rng) -> Vec<(String, Vec<u8>)>,
) -> CaseResult {
    let mut rng = context.rng();
    for (layout, stored) in layouts(context)? {
        let mut all: Vec<(&Path, String, Vec<u8>)> = Vec::new();
        for (path, whole) in &stored.files {
            let mut damages = ways(whole, &mut rng);
            damages.retain(|(_, bytes)| bytes != whole);
            if path.ends_with(Reserve::FILE) {
                // It holds no data.
                rng.shuffle(&mut damages);
                damages.truncate(2);
            }
            all.extend(damages.into_iter().map(|(what, bytes)| (path.as_path(), what, bytes)));
        }
        let most = budget(context, &stored, most);
        rng.shuffle(&mut all);
        for (path, what, bytes) in all.into_iter().take(most) {
            check_one(context, layout, &stored, path, &what, bytes)?;
        }
    }
    enough(context)
}

fn check_one(
    context: &Context,
    layout: &str,
    stored: &Stored,
    path: &Path,
    what: &str,
    bytes: Vec<u8>,
) -> CaseResult {
    context.set_doing(format!("{layout}: {}: {what}", path.display()));
    stored
        .check(context, &[(path, Some(bytes.clone()))], true)
        .map_err(|failure| explain(failure, &stored.disk, path, what, Some(bytes)).with("layout", layout))
}

/// The most damages of a kind that a case makes in each layout, at effort 1.
const MOST: u64 = 60;

fn flipped_bits(context: &Context) -> CaseResult {
    each_damage(context, MOST, |whole, rng| {
        let flip = |at: usize, mask: u8| {
            (format!("byte {at} of {} xor {mask:#04x}", whole.len()), flipped(whole, at, mask))
        };
        places(whole, rng, 60).into_iter().map(|at| flip(at, 1 << (at % 8))).collect()
    })
}

/// `whole` with the bytes from `start` on, `count` of them, set to `byte`.
fn filled(whole: &[u8], start: usize, count: usize, byte: u8) -> (String, Vec<u8>) {
    let mut bytes = whole.to_vec();
    bytes.iter_mut().skip(start).take(count).for_each(|at| *at = byte);
    (format!("{count} bytes from {start} of {} set to {byte:#04x}", whole.len()), bytes)
}

fn zeroed_blocks(context: &Context) -> CaseResult {
    each_damage(context, MOST, |whole, rng| {
        let len = whole.len();
        let mut damages = vec![filled(whole, 0, len, 0), filled(whole, 0, len, 0xff)];
        for at in places(whole, rng, 6) {
            damages.push(filled(whole, at, len - at, 0));
            damages.push(filled(whole, at, 8, 0));
        }
        for block in [64, 512, 4096] {
            let starts: Vec<usize> = (0..len).step_by(block).collect();
            let chosen = (0..12).filter_map(|_| rng.choice(&starts).copied());
            damages
                .extend(chosen.flat_map(|at| [filled(whole, at, block, 0), filled(whole, at, block, 0xff)]));
        }
        damages
    })
}

fn cut_tails(context: &Context) -> CaseResult {
    let cut = |whole: &[u8], len: usize| {
        let what = format!("cut to {len} of {} bytes", whole.len());
        (what, whole.get(..len).unwrap_or_default().to_vec())
    };
    // In the small store every length counts, and every tail of zeros: a file whose space was
    // reserved keeps its length.
    if let Some((layout, stored)) = layouts(context)?.into_iter().next() {
        for (path, whole) in &stored.files {
            let data = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for len in (0..=data.min(1500)).filter(|len| *len < whole.len()) {
                for (what, bytes) in [cut(whole, len), filled(whole, len, whole.len() - len, 0)] {
                    if bytes != *whole {
                        check_one(context, layout, &stored, path, &what, bytes)?;
                    }
                }
            }
        }
    }
    each_damage(context, MOST, |whole, rng| {
        let mut lens = places(whole, rng, 40);
        lens.extend((0..whole.len()).step_by(512));
        lens.into_iter().map(|len| cut(whole, len)).collect()
    })
}

fn shifted_and_repeated_bytes(context: &Context) -> CaseResult {
    each_damage(context, MOST, |whole, rng| {
        let len = whole.len();
        let end = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut damages = Vec::new();
        for count in [1, 64, 512, 4096] {
            let tail = whole.get(len.saturating_sub(count)..).unwrap_or_default();
            damages.push((format!("{count} zeros appended"), [whole, &vec![0; count]].concat()));
            damages.push((format!("its last {count} bytes appended again"), [whole, tail].concat()));
            let data = whole.get(end.saturating_sub(count)..end).unwrap_or_default();
            let mut repeated = whole.to_vec();
            repeated.splice(end.min(len)..(end + data.len()).min(len), data.iter().copied());
            damages.push((format!("the last {count} bytes of its data repeated behind them"), repeated));
        }
        damages.push(("the whole file appended again".to_owned(), [whole, whole].concat()));
        let garbage: Vec<u8> = (0..300).map(|_| rng.u8(..)).collect();
        damages.push(("300 random bytes appended".to_owned(), [whole, &garbage].concat()));
        for at in places(whole, rng, 12) {
            let (mut longer, mut shorter) = (whole.to_vec(), whole.to_vec());
            longer.insert(at, rng.u8(..));
            shorter.remove(at);
            damages.push((format!("a byte inserted at {at} of {len}"), longer));
            damages.push((format!("byte {at} of {len} taken out"), shorter));
        }
        damages
    })
}

fn swapped_files_of_equal_length(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for (layout, stored) in layouts(context)? {
        if !stored.has_several_files() {
            continue;
        }
        let mut pairs = Vec::new();
        for (nth, one) in stored.files.iter().enumerate() {
            pairs.extend(stored.files.iter().skip(nth + 1).map(|other| (one, other)));
        }
        pairs.retain(|(one, other)| one.1.len() == other.1.len() && one.1 != other.1);
        rng.shuffle(&mut pairs);
        let most = usize::try_from(context.scaled(40)).unwrap_or(40);
        for ((one, first), (other, second)) in pairs.into_iter().take(most) {
            let swapped = [(one.as_path(), Some(second.clone())), (other.as_path(), Some(first.clone()))];
            let copied = [(one.as_path(), Some(second.clone()))];
            for (damage, what) in [(&swapped[..], "swapped with"), (&copied[..], "replaced by a copy of")] {
                let what = format!("{what} {}, of the same length", other.display());
                context.set_doing(format!("{layout}: {}: {what}", one.display()));
                stored.check(context, damage, true).map_err(|failure| {
                    explain(failure, &stored.disk, one, &what, Some(second.clone())).with("layout", layout)
                })?;
            }
        }
        for (path, bytes) in stored.files.iter().take(20) {
            let copy = next_name(path);
            if stored.files.iter().any(|(known, _)| *known == copy) {
                continue;
            }
            let what = format!("a copy of {}", path.display());
            context.set_doing(format!("{layout}: {}: {what}", copy.display()));
            stored.check(context, &[(&copy, Some(bytes.clone()))], false).map_err(|failure| {
                explain(failure, &stored.disk, &copy, &what, Some(bytes.clone())).with("layout", layout)
            })?;
        }
    }
    Ok(())
}

/// The path with its last number, in decimal, raised by one; without a number, with `1` behind.
fn next_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_digit = |c: char| c.is_ascii_digit();
    let Some(end) = name.rfind(is_digit).map(|last| last + 1) else {
        return path.with_file_name(format!("{name}1"));
    };
    let (before, after) = name.split_at(end);
    let start = before.rfind(|c: char| !is_digit(c)).map_or(0, |last| last + 1);
    let (stem, digits) = before.split_at(start);
    let number = digits.parse::<u64>().unwrap_or_default().saturating_add(1);
    path.with_file_name(format!("{stem}{number:0width$}{after}", width = digits.len()))
}

fn swapped_blocks(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for (layout, stored) in layouts(context)? {
        for _ in 0..budget(context, &stored, MOST) {
            let block = rng.choice([64, 512, 4096]).unwrap_or(512);
            let full: Vec<_> =
                stored.files.iter().filter(|(path, _)| !path.ends_with(Reserve::FILE)).collect();
            let (Some((one, first)), Some((other, second))) = (rng.choice(&full), rng.choice(&full)) else {
                break;
            };
            let place = |bytes: &[u8], rng: &mut Rng| rng.usize(..bytes.len().div_ceil(block).max(1)) * block;
            let (from, to) = (place(first, &mut rng), place(second, &mut rng));
            let part =
                |bytes: &[u8], at: usize| -> Vec<u8> { bytes.iter().skip(at).take(block).copied().collect() };
            let put = |bytes: &mut Vec<u8>, at: usize, part: &[u8]| {
                bytes.iter_mut().skip(at).zip(part).for_each(|(to, from)| *to = *from);
            };
            let (here, there) = (part(first, from), part(second, to));
            if here.len() != block || there.len() != block || here == there {
                continue;
            }
            let mut damaged = second.clone();
            put(&mut damaged, to, &here);
            let mut damage = vec![(other.as_path(), Some(damaged.clone()))];
            let mut what =
                format!("{block} bytes at {to} overwritten with those at {from} of {}", one.display());
            if rng.bool() {
                what = format!("{block} bytes at {to} swapped with those at {from} of {}", one.display());
                if one == other {
                    put(&mut damaged, from, &there);
                    damage = vec![(other.as_path(), Some(damaged.clone()))];
                } else {
                    let mut back = first.clone();
                    put(&mut back, from, &there);
                    damage.push((one.as_path(), Some(back)));
                }
            }
            context.set_doing(format!("{layout}: {}: {what}", other.display()));
            stored.check(context, &damage, true).map_err(|failure| {
                explain(failure, &stored.disk, other, &what, Some(damaged)).with("layout", layout)
            })?;
        }
    }
    enough(context)
}

fn foreign_files(context: &Context) -> CaseResult {
    for (layout, stored) in layouts(context)? {
        if !stored.has_several_files() {
            continue;
        }
        for (path, bytes) in another_store(context, &stored)?.iter().take(40) {
            let what = "replaced by the file of the same name of another store";
            context.set_doing(format!("{layout}: {}: {what}", path.display()));
            stored.check(context, &[(path, Some(bytes.clone()))], false).map_err(|failure| {
                explain(failure, &stored.disk, path, what, Some(bytes.clone())).with("layout", layout)
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_name_counts() {
        for (name, next) in
            [("log.9", "log.10"), ("00019.seg", "00020.seg"), ("STORE", "STORE1"), ("a1b", "a2b")]
        {
            assert_eq!(next_name(Path::new("/s").join(name).as_path()), Path::new("/s").join(next));
        }
    }
}

//! Every method called from every callback, and callbacks that take their time: cases of the group
//! `scan`.

use super::calls::start;
use crate::executor;
use crate::failure::{ensure, fail};
use crate::rig::{Policy, Setup};
use crate::{CaseResult, Context, Failure};
use kv_core::{Background, Batch, Engine, EngineExt, Lsn, Scale};
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Keys of a store under test.
const KEYS: u16 = 120;
/// New keys of one change, so that an engine's units overflow.
const CROWD: u16 = 150;

/// The call that runs the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    Read,
    ReadMany,
    Scan,
}

impl Visit {
    const ALL: [Visit; 3] = [Visit::Read, Visit::ReadMany, Visit::Scan];

    fn name(self) -> &'static str {
        match self {
            Visit::Read => "read",
            Visit::ReadMany => "read_many",
            Visit::Scan => "scan",
        }
    }

    /// Runs the call, and `act` inside its callback, at one visit, with the key and its value.
    fn run(self, engine: &dyn Engine, act: &mut dyn FnMut(&[u8], &[u8]) -> CaseResult) -> CaseResult {
        let visited = key(60);
        let mut result = None;
        match self {
            Visit::Read => {
                engine.read(&visited, &mut |value| result = Some(act(&visited, value)))?;
            }
            Visit::ReadMany => {
                let keys = [key(3), visited.clone(), b"absent".to_vec(), key(61)];
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                engine.read_many(&keys, &mut |position, value| {
                    if let (1, Some(value)) = (position, value) {
                        result = Some(act(&visited, value));
                    }
                })?;
            }
            // An engine scans in any order: the first visit, and its key, will do.
            Visit::Scan => engine.scan(&mut |key, value| {
                if result.is_none() {
                    result = Some(act(key, value));
                }
                ControlFlow::Continue(())
            })?,
        }
        result
            .unwrap_or_else(|| Err(Failure::new(format!("{} makes no visit of a present key", self.name()))))
    }
}

fn key(number: u16) -> Vec<u8> {
    let [high, low] = (number * 500).to_be_bytes();
    vec![b'k', high, low]
}

fn value(number: u16) -> Vec<u8> {
    number.to_be_bytes().repeat(25)
}

/// A new key between those of the store.
fn new_key(number: u16, detail: u16) -> Vec<u8> {
    [key(number % KEYS), detail.to_be_bytes().to_vec()].concat()
}

/// A call inside a callback, or beside one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Put,
    Delete,
    Apply,
    PutMany,
    DeleteMany,
    Get,
    Read,
    ReadMany,
    Scan,
    BrokenScan,
    Sync,
    WaitDurable,
    PollDurable,
    Stats,
    LastLsn,
    DurableLsn,
    Compact,
}

impl Method {
    /// Those that take a key.
    const KEYED: [Method; 6] =
        [Method::Put, Method::Delete, Method::Apply, Method::Get, Method::Read, Method::ReadMany];

    /// The others.
    const KEYLESS: [Method; 11] = [
        Method::PutMany,
        Method::DeleteMany,
        Method::Scan,
        Method::BrokenScan,
        Method::Sync,
        Method::WaitDurable,
        Method::PollDurable,
        Method::Stats,
        Method::LastLsn,
        Method::DurableLsn,
        Method::Compact,
    ];

    fn name(self) -> &'static str {
        match self {
            Method::Put => "put",
            Method::Delete => "delete",
            Method::Apply => "apply",
            Method::PutMany => "put of many new keys",
            Method::DeleteMany => "delete of many keys",
            Method::Get => "get",
            Method::Read => "read",
            Method::ReadMany => "read_many",
            Method::Scan => "scan",
            Method::BrokenScan => "scan that ends at Break",
            Method::Sync => "sync",
            Method::WaitDurable => "wait_durable",
            Method::PollDurable => "poll_durable",
            Method::Stats => "stats",
            Method::LastLsn => "last_lsn",
            Method::DurableLsn => "durable_lsn",
            Method::Compact => "compact",
        }
    }

    /// Makes the call, and checks that it sees its own effects.
    fn call(self, engine: &dyn Engine, key: &[u8], patience: Duration) -> CaseResult {
        match self {
            Method::Put => {
                engine.put(key, b"from a callback")?;
                expect(engine, key, Some(b"from a callback"))
            }
            Method::Delete => {
                engine.delete(key)?;
                expect(engine, key, None)
            }
            Method::Apply => {
                let mut batch = Batch::new();
                batch.put(key, b"from a batch").put(&new_key(7, 1), b"v").delete(&new_key(8, 1));
                engine.apply(&batch)?;
                expect(engine, key, Some(b"from a batch"))
            }
            Method::PutMany => (0..CROWD).try_for_each(|number| {
                engine.put(&new_key(number, number), &value(number))?;
                expect(engine, &new_key(number, number), Some(&value(number)))
            }),
            Method::DeleteMany => (0..CROWD).try_for_each(|number| {
                engine.delete(&new_key(number, number))?;
                engine.delete(&self::key(number % KEYS))?;
                expect(engine, &self::key(number % KEYS), None)
            }),
            Method::Get => Ok(engine.get(key).map(drop)?),
            Method::Read => Ok(engine.read(key, &mut |_| {}).map(drop)?),
            Method::ReadMany => Ok(engine.read_many(&[key, b"absent", key], &mut |_, _| {})?),
            Method::Scan => {
                engine.put(&new_key(9, 9), b"fresh")?;
                let mut is_found = false;
                engine.scan(&mut |key, _| {
                    is_found |= key == new_key(9, 9);
                    ControlFlow::Continue(())
                })?;
                ensure!(is_found, "a scan inside a callback does not visit a key that was put before it");
                Ok(())
            }
            Method::BrokenScan => Ok(engine.scan(&mut |_, _| ControlFlow::Break(()))?),
            Method::Sync => {
                let lsn = engine.put(key, b"synced")?;
                let reached = engine.sync()?;
                ensure!(reached >= lsn, "a sync after LSN {lsn} reached only {reached}");
                Ok(())
            }
            Method::WaitDurable => {
                let lsn = engine.put(key, b"waited for")?;
                Ok(engine.wait_durable(lsn)?)
            }
            Method::PollDurable => {
                let lsn = engine.put(key, b"awaited")?;
                match executor::run(engine.durable(lsn), patience) {
                    Some(answer) => Ok(answer?),
                    None => fail!("the future that waits for LSN {lsn} was never woken"),
                }
            }
            Method::Stats => {
                let _ = engine.stats();
                Ok(())
            }
            Method::LastLsn => {
                let lsn = engine.put(key, b"counted")?;
                let last = engine.last_lsn();
                ensure!(last >= lsn, "last_lsn is {last} after a put with LSN {lsn}");
                Ok(())
            }
            Method::DurableLsn => {
                ensure!(engine.durable_lsn() <= engine.last_lsn(), "durable_lsn is beyond last_lsn");
                Ok(())
            }
            Method::Compact => Ok(engine.as_compact().map_or(Ok(()), |one| one.compact().map(drop))?),
        }
    }
}

fn expect(engine: &dyn Engine, key: &[u8], expected: Option<&[u8]>) -> CaseResult {
    let found = engine.get(key)?;
    ensure!(
        found.as_deref() == expected,
        "inside a callback a change of {key:?} is not visible after its call: {} bytes are there",
        found.map_or(0, |found| found.len())
    );
    Ok(())
}

/// The key of a call, as seen from the visited one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Visited,
    Other,
    New,
    Absent,
}

impl Which {
    const ALL: [Which; 4] = [Which::Visited, Which::Other, Which::New, Which::Absent];

    fn key(self, visited: &[u8]) -> Vec<u8> {
        match self {
            Which::Visited => visited.to_vec(),
            Which::Other => key(if visited == key(30) { 31 } else { 30 }),
            Which::New => [visited, b"new"].concat(),
            Which::Absent => b"absent".to_vec(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Which::Visited => " of the visited key",
            Which::Other => " of another present key",
            Which::New => " of a new key",
            Which::Absent => " of an absent key",
        }
    }
}

/// All calls: each keyed method with each key, and the others once.
fn calls() -> impl Iterator<Item = (Method, Which, String)> {
    let keyed = Method::KEYED.into_iter().flat_map(|method| {
        Which::ALL.map(|which| (method, which, format!("{}{}", method.name(), which.name())))
    });
    let keyless =
        Method::KEYLESS.into_iter().map(|method| (method, Which::Visited, method.name().to_owned()));
    keyed.chain(keyless)
}

/// A store with its keys, and none of the others.
fn fill(engine: &dyn Engine) -> CaseResult {
    let mut batch = Batch::new();
    engine.scan(&mut |key, _| {
        batch.delete(key);
        ControlFlow::Continue(())
    })?;
    for number in 0..KEYS {
        batch.put(&key(number), &value(number));
    }
    engine.apply(&batch)?;
    Ok(())
}

fn setups(context: &Context) -> Vec<Setup> {
    let with = |policy, background| Setup { background, ..Setup::tiny(context, policy) };
    let quiet = context.quiet_background();
    vec![
        with(Policy::Manual, quiet),
        with(Policy::MaxLogSize(300), Background::Threads),
        with(Policy::Always, Background::Threads),
        Setup { scale: Scale::Normal, ..with(Policy::Manual, Background::Threads) },
    ]
}

pub(super) fn every_method_in_every_callback(context: &Context) -> CaseResult {
    let patience = super::calls::patience(context);
    for setup in setups(context) {
        // A real directory lives as long as its rig.
        let rig = context.rig(setup)?;
        let engine = rig.open()?;
        for visit in Visit::ALL {
            for (method, which, call) in calls() {
                fill(&*engine)?;
                let theirs = Arc::clone(&engine);
                let what = format!("{call} inside a {} callback", visit.name());
                context.set_doing(what.clone());
                let named = what.clone();
                let running = start(context, what, move || {
                    visit.run(&*theirs, &mut |visited, value| {
                        let before = value.to_vec();
                        method.call(&*theirs, &which.key(visited), patience)?;
                        ensure!(
                            value == before,
                            "the borrowed bytes of {visited:?} changed during their callback, by {named}"
                        );
                        Ok(())
                    })
                });
                running.answer("")?.map_err(|failure| {
                    failure.with("while", format!("{call} inside a {} callback", visit.name()))
                })?;
            }
        }
        engine.close()?;
    }
    context.explored().history();
    Ok(())
}

/// A callback that waits, and the calls that go on beside it.
fn beside_a_waiting_callback(context: &Context, setup: Setup, visit: Visit) -> CaseResult {
    let patience = super::calls::patience(context);
    // A real directory lives as long as its rig.
    let rig = context.rig(setup)?;
    let engine = rig.open()?;
    fill(&*engine)?;
    let (entered, has_entered) = mpsc::channel::<Vec<u8>>();
    let (leave, may_leave) = mpsc::channel::<()>();
    let theirs = Arc::clone(&engine);
    let waiting = start(context, format!("a {}", visit.name()), move || {
        visit.run(&*theirs, &mut |visited, value| {
            let before = value.to_vec();
            let _ = entered.send(visited.to_vec());
            // Ends with the case, too.
            let _ = may_leave.recv();
            ensure!(value == before, "the borrowed bytes of {visited:?} changed during their callback");
            Ok(())
        })
    });
    let Ok(visited) = has_entered.recv_timeout(patience) else {
        return Err(waiting.stuck("with a callback"));
    };
    for (method, which, call) in calls() {
        let theirs = Arc::clone(&engine);
        let key = which.key(&visited);
        let call = start(context, format!("{call} by another thread"), move || {
            method.call(&*theirs, &key, patience)
        });
        call.answer(&format!("while a callback of {} was running", visit.name()))??;
    }
    drop(leave);
    waiting.answer("after its callback returned")??;
    context.explored().history();
    Ok(())
}

pub(super) fn no_thread_waits_for_a_callback(context: &Context) -> CaseResult {
    for setup in setups(context) {
        let setup = Setup { background: Background::Threads, ..setup };
        for visit in Visit::ALL {
            beside_a_waiting_callback(context, setup, visit)?;
        }
    }
    Ok(())
}

/// The LSNs inside callbacks go with the changes inside callbacks.
pub(super) fn changes_in_callbacks_survive(context: &Context) -> CaseResult {
    for visit in Visit::ALL {
        let rig = context.rig(Setup::tiny(context, Policy::MaxLogSize(300)))?;
        let engine = rig.open()?;
        fill(&*engine)?;
        let mut lsns: Vec<Lsn> = vec![engine.last_lsn()];
        visit.run(&*engine, &mut |visited, _| {
            for number in 0..40u16 {
                lsns.push(engine.put(&new_key(number, 77), &value(number))?);
                lsns.extend(engine.delete(&key(if visited == key(number) { 99 } else { number }))?);
            }
            Ok(())
        })?;
        ensure!(
            lsns.windows(2).all(|pair| pair.first() < pair.last()),
            "LSNs of changes inside a {} callback do not grow",
            visit.name()
        );
        engine.close()?;
        let engine = rig.open()?;
        for number in 0..40 {
            let found = engine.get(&new_key(number, 77))?;
            ensure!(
                found.as_deref() == Some(&*value(number)),
                "a put inside a {} callback is gone after a close and an open",
                visit.name()
            );
        }
    }
    Ok(())
}

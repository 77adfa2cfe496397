//! The contract of each call of an engine.

use super::{Section, by, not, undisturbed};

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Engine::put",
        file: "kv-core/src/engine.rs",
        item: "fn put(",
        judged: &[
            by("Stores value under key; returns the LSN of the change.", &["kv101", "kv113"]),
            by(
                "TooLarge, ReadOnly, Poisoned, Closed, Forked, a refusal.",
                &["kv104", "kv431", "kv443", "kv601"],
            ),
            by(
                "Under WhenDurable or in inline mode also the I/O error of a failed dump.",
                &["kv601", "kv826"],
            ),
        ],
    },
    Section {
        title: "Engine::delete",
        file: "kv-core/src/engine.rs",
        item: "fn delete(",
        judged: &[
            by(
                "Removes key; None when it was not there (then nothing changed and no LSN was taken).",
                &["kv102", "kv112"],
            ),
            not("As for put.", "refers to another sentence"),
        ],
    },
    Section {
        title: "Engine::apply",
        file: "kv-core/src/engine.rs",
        item: "fn apply(",
        judged: &[
            by(
                "Applies all changes of batch or none, under one LSN, which it returns.",
                &["kv201", "kv203", "kv206"],
            ),
            by("Where the batch names a key twice, the last change wins.", &["kv106", "kv208", "kv209"]),
            by(
                "A batch that changes nothing (empty, or only deletes of absent keys) takes no LSN and returns last_lsn.",
                &["kv202", "kv205", "kv208", "kv210"],
            ),
            not("As for put.", "refers to another sentence"),
        ],
    },
    Section {
        title: "Engine::get",
        file: "kv-core/src/engine.rs",
        item: "fn get(",
        judged: &[
            by("The value under key.", &["kv101", "kv115"]),
            by(
                "TooLarge, Closed, Forked, or an I/O or corruption error if the value had to be read from disk.",
                &["kv104", "kv404", "kv609"],
            ),
        ],
    },
    Section {
        title: "Engine::read",
        file: "kv-core/src/engine.rs",
        item: "fn read(",
        judged: &[
            by(
                "Calls visit once with the value under key, borrowed where it lies, and returns true; or returns false when there is none.",
                &["kv113", "kv115", "kv437"],
            ),
            not("As for get.", "refers to another sentence"),
        ],
    },
    Section {
        title: "Engine::read_many",
        file: "kv-core/src/engine.rs",
        item: "fn read_many(",
        judged: &[
            by(
                "Calls visit(position, value) once for each of keys, in their order, with the value borrowed where it lies, or None when there is none.",
                &["kv109", "kv120", "kv121"],
            ),
            by("The same as so many reads: no snapshot.", &["kv120"]),
            not(
                "An engine that waits for memory or a disk can wait for several keys at a time.",
                "a permission",
            ),
            not("As for get.", "refers to another sentence"),
            by("With a key over the limit nothing is visited.", &["kv122"]),
            undisturbed(
                "Visits before another error are right.",
                &["kv609"],
                "no engine with defects reads a file for a read",
            ),
        ],
    },
    Section {
        title: "Engine::scan",
        file: "kv-core/src/engine.rs",
        item: "fn scan(",
        judged: &[
            by(
                "Calls visit(key, value) for the keys of the store, in no particular order, until it answers Break.",
                &["kv301", "kv305", "kv306"],
            ),
            by(
                "A key that is present during the whole scan is visited exactly once, with a value that it had during the scan.",
                &["kv303", "kv304", "kv310"],
            ),
            by("A key that is added or removed meanwhile is visited at most once.", &["kv304", "kv310"]),
            not(
                "The scan is not a snapshot: it may see the change of a concurrent batch for one key and not for another.",
                "a permission",
            ),
            not("As for get.", "refers to another sentence"),
        ],
    },
    Section {
        title: "Engine::sync",
        file: "kv-core/src/engine.rs",
        item: "fn sync(",
        judged: &[
            by(
                "Makes every change visible when the call began durable; returns the durable LSN reached.",
                &["kv123", "kv802", "kv816"],
            ),
            by("The I/O error of a failed dump, Poisoned, ReadOnly, Closed, Forked.", &["kv431", "kv603"]),
        ],
    },
    Section {
        title: "Engine::wait_durable",
        file: "kv-core/src/engine.rs",
        item: "fn wait_durable(",
        judged: &[
            by(
                "Returns once lsn is durable: at once if it already is, otherwise it causes the sync itself.",
                &["kv123", "kv522", "kv816"],
            ),
            undisturbed(
                "Concurrent callers share one sync (group commit).",
                &["kv702", "kv809"],
                "a matter of cost: the suite counts the syncs of kv809",
            ),
            by("An LSN beyond last_lsn is Error::InvalidArgument.", &["kv123", "kv407"]),
            not("As for sync.", "refers to another sentence"),
        ],
    },
    Section {
        title: "Engine::poll_durable",
        file: "kv-core/src/engine.rs",
        item: "fn poll_durable(",
        judged: &[
            by(
                "As wait_durable, without blocking the thread for others: Pending until lsn is durable.",
                &["kv808", "kv816"],
            ),
            by("The poll causes the sync even if the policy holds.", &["kv808"]),
            undisturbed(
                "An engine with background threads asks its thread for the sync, and many polls share one.",
                &["kv809"],
                "a matter of cost: the suite counts the syncs of kv809",
            ),
            by(
                "An engine without threads, or in inline mode, syncs within the poll and never returns Pending.",
                &["kv808"],
            ),
            by(
                "The engine wakes the task when lsn is durable, and when the engine is poisoned or closed.",
                &["kv808", "kv810", "kv812"],
            ),
            not(
                "The wake may come from a thread of the engine, which dumps nothing while the waker runs: a waker schedules its task and returns.",
                "advice to the caller",
            ),
            undisturbed(
                "A waker that holds the last handle may drop it.",
                &["kv813"],
                "a defect would end in a hang of the whole process",
            ),
            by("A task that polls again replaces its entry.", &["kv811"]),
            by("A task that never polls again leaves one entry until the next wake of lsn.", &["kv811"]),
            not("EngineExt::durable makes a future of it.", "refers to another sentence"),
            not("As for wait_durable.", "refers to another sentence"),
            by(
                "Where a sync fails for several tasks, each gets Error::Poisoned or the failure itself.",
                &["kv810", "kv818"],
            ),
        ],
    },
    Section {
        title: "Engine::durable_lsn",
        file: "kv-core/src/engine.rs",
        item: "fn durable_lsn(",
        judged: &[
            by("The newest durable change.", &["kv757", "kv841"]),
            not("See the contract.", "refers to another sentence"),
        ],
    },
    Section {
        title: "Engine::last_lsn",
        file: "kv-core/src/engine.rs",
        item: "fn last_lsn(",
        judged: &[
            by("The newest visible change; 0 before the first.", &["kv110", "kv757", "kv841"]),
            by("LSNs that are only reserved do not count.", &["kv111", "kv205", "kv525"]),
        ],
    },
    Section {
        title: "Engine::stats",
        file: "kv-core/src/engine.rs",
        item: "fn stats(",
        judged: &[
            by("Counters and sizes.", &["kv841", "kv842", "kv843", "kv844", "kv845"]),
            not("May take locks; not for the hot path.", "a permission"),
        ],
    },
    Section {
        title: "Engine::close",
        file: "kv-core/src/engine.rs",
        item: "fn close(",
        judged: &[
            by(
                "Makes everything durable, stops background work and releases the directory.",
                &["kv433", "kv523", "kv707", "kv906"],
            ),
            by(
                "A second call does nothing and answers as the first: Ok, or an error.",
                &["kv404", "kv611", "kv708"],
            ),
            by(
                "On a poisoned engine it releases the directory and returns Poisoned.",
                &["kv432", "kv607", "kv611"],
            ),
            by("As for sync; the directory is released all the same.", &["kv416", "kv432"]),
        ],
    },
];

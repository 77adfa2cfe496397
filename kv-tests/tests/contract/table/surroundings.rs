//! The contract of factories, files, policies and figures.

use super::{Section, by, not, undisturbed};

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "OpenOptions::create_if_missing",
        file: "kv-core/src/factory.rs",
        item: "pub create_if_missing: bool",
        judged: &[
            by(
                "Create the store when dir is missing or empty; else such an open is NotAStore.",
                &["kv405", "kv417"],
            ),
            by("Default true.", &["kv405"]),
        ],
    },
    Section {
        title: "OpenOptions::read_only",
        file: "kv-core/src/factory.rs",
        item: "pub read_only: bool",
        judged: &[
            by(
                "Open the store for reading only: nothing on the disk is changed, other readers may have it open too, and no writer.",
                &["kv441", "kv442"],
            ),
            by("Changes, sync and waits beyond durable_lsn are Error::ReadOnly.", &["kv443"]),
            by("An engine without the capability answers Error::Unsupported.", &["kv444"]),
            by("Default false.", &["kv401"]),
        ],
    },
    Section {
        title: "EngineFactory::capabilities",
        file: "kv-core/src/factory.rs",
        item: "fn capabilities(",
        judged: &[undisturbed(
            "The capabilities of the engine.",
            &["kv409"],
            "a defect would change which cases run",
        )],
    },
    Section {
        title: "Background::Inline",
        file: "kv-core/src/env.rs",
        item: "Inline,",
        judged: &[
            by(
                "The thread of the caller, inside the call after which a policy asks for the work.",
                &["kv825"],
            ),
            undisturbed(
                "Given one calling thread, a ManualClock and a deterministic Fs, a run is then reproducible operation for operation.",
                &["kv506"],
                "no defect makes a run irreproducible",
            ),
        ],
    },
    Section {
        title: "File::read_at",
        file: "kv-core/src/fs/mod.rs",
        item: "fn read_at(",
        judged: &[
            by("Reads at offset; returns how many bytes were read, 0 at the end.", &["kv605"]),
            by("May read less than asked.", &["kv605"]),
            by("As the system answers, Interrupted included.", &["kv605"]),
        ],
    },
    Section {
        title: "File::write_at",
        file: "kv-core/src/fs/mod.rs",
        item: "fn write_at(",
        judged: &[
            by("Writes at offset; returns how many bytes were written.", &["kv605"]),
            by("May write less than given.", &["kv605"]),
            not("A write past the end fills the gap with zeros.", "says what it is"),
            by("As the system answers, Interrupted included.", &["kv605"]),
        ],
    },
    Section {
        title: "PersistencePolicy",
        file: "kv-core/src/persistence.rs",
        item: "pub trait PersistencePolicy",
        judged: &[
            not("Decides when pending changes are dumped to disk.", "says what it is"),
            by(
                "An engine asks after every change (cheaply: it may skip asking when the last answer cannot have changed), and again when the time of the last answer has passed.",
                &["kv821", "kv831"],
            ),
            by("It does not ask while nothing is pending.", &["kv822", "kv835"]),
        ],
    },
    Section {
        title: "Pending::bytes",
        file: "kv-core/src/persistence.rs",
        item: "pub bytes: u64",
        judged: &[by(
            "Bytes of changes that are not durable: at least their keys and values, and what the engine adds to them in its files.",
            &["kv821", "kv823", "kv824"],
        )],
    },
    Section {
        title: "Pending::records",
        file: "kv-core/src/persistence.rs",
        item: "pub records",
        judged: &[
            by("How many changes those are: puts, deletes that found their key, batches.", &["kv821"]),
            by("A batch is one.", &["kv821"]),
        ],
    },
    Section {
        title: "Pending::oldest_age",
        file: "kv-core/src/persistence.rs",
        item: "pub oldest_age",
        judged: &[by("How long the oldest of them has been visible.", &["kv821", "kv823", "kv824"])],
    },
    Section {
        title: "Pending::since_last_dump",
        file: "kv-core/src/persistence.rs",
        item: "pub since_last_dump",
        judged: &[
            by("Time since the last dump ended, or since open.", &["kv821", "kv823"]),
            by("A write without a sync is a dump.", &["kv824"]),
        ],
    },
    Section {
        title: "Decision::ask_again_in",
        file: "kv-core/src/persistence.rs",
        item: "pub ask_again_in",
        judged: &[
            by(
                "Ask again after this time, even if nothing changes; None: when something is added.",
                &["kv807", "kv831", "kv832"],
            ),
            by(
                "With inline background work nothing happens between two calls, and the next change asks.",
                &["kv825"],
            ),
        ],
    },
    Section {
        title: "LossWindow",
        file: "kv-core/src/persistence.rs",
        item: "pub struct LossWindow",
        judged: &[
            by("The most that a power cut may take under a policy; None: no bound.", &["kv505", "kv509"]),
            by(
                "The bound speaks of the changes pending when the policy last answered hold.",
                &["kv509", "kv827"],
            ),
            by(
                "An engine with background threads adds the changes that arrive during a dump; in inline mode it is exact.",
                &["kv505"],
            ),
        ],
    },
    Section {
        title: "Stats",
        file: "kv-core/src/stats.rs",
        item: "pub struct Stats",
        judged: &[
            not("The counters and sizes of an engine.", "says what it is"),
            by("All sizes are bytes; counters start at open.", &["kv841", "kv842"]),
            by(
                "Every engine fills in keys, last_lsn, durable_lsn, changes and recovery.",
                &["kv841", "kv842", "kv843", "kv844"],
            ),
            not(
                "It leaves another field at zero if it has no such thing (a table without a log has no segments), or does not measure it.",
                "a permission",
            ),
            by(
                "A field that is not zero is right: disk_bytes counts every file that holds changes, by its length.",
                &["kv841", "kv844", "kv845"],
            ),
            not("Memory that moves from one use to another may count twice for a moment.", "a limit"),
            not(
                "One exception: after a crash and an open from a checkpoint, two fields may be estimates.",
                "a permission",
            ),
            not(
                "The number of keys is exact once warm_up_bytes is zero, and live_bytes is exact once all records are in memory.",
                "the engines' own tests judge it",
            ),
        ],
    },
];

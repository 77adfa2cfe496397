//! The contract of past states.

use super::{Section, by, not, undisturbed};

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Past states",
        file: "kv-core/src/point_in_time.rs",
        item: "pub trait PointInTime",
        judged: &[
            not("Engines that can go back to a past state.", "says what it is"),
            by(
                "States. Every target names a prefix of the log order: the state after all changes up to an LSN, and none beyond.",
                &["kv951"],
            ),
            by(
                "The answer says which LSN it reached, at what time, and whether it rounded.",
                &["kv951", "kv953"],
            ),
            by("Every change of an earlier call counts, durable or not.", &["kv951"]),
            by("The window reaches from first_lsn to the newest change.", &["kv951"]),
            by("Each LSN in it is a target.", &["kv951", "kv952"]),
            by(
                "A target outside it, in the future included, is OutsideWindow, which names the window.",
                &["kv952", "kv954"],
            ),
            by("The RetentionPolicy decides how far the window reaches back.", &["kv952"]),
            by(
                "Its beginning never goes back, and passes no state that the policy or a point keeps: not by a compaction, an open, or a crash.",
                &["kv952", "kv955", "kv960"],
            ),
            by("Time. A time is a target from the window's first time to the present.", &["kv953", "kv954"]),
            by(
                "It leads to the last change that the engine knows to have been made at or before it.",
                &["kv953"],
            ),
            by(
                "As long as the clock is not set back, no change of the state was made after that time, and a later time never leads to an earlier state.",
                &["kv953"],
            ),
            by("A change that a sync made durable by that time is in the state.", &["kv953"]),
            by("The present leads to the newest change.", &["kv953"]),
            not("Moments. Some engines do not keep the state of every LSN.", "a permission"),
            not("They keep the states of some LSNs, the moments, which reach lists.", "a definition"),
            by("The first and the last state of the window are moments.", &["kv951"]),
            by("Each dump leaves one, until the policy lets it go.", &["kv951", "kv960"]),
            by(
                "A target between two moments leads to the earlier one, and the answer says that it was rounded.",
                &["kv951", "kv955"],
            ),
            not("A point keeps its own moment only.", "what an engine may leave out"),
            by("A delete in a history has the LSN of the first moment without the key.", &["kv956"]),
            not("Points. A point is a state with a name.", "a definition"),
            by("It keeps the window open back to its state, until it is removed or expires.", &["kv955"]),
            by("A point survives a close and a crash.", &["kv955", "kv961"]),
            not(
                "An engine may limit the files that past states take: beyond that limit the oldest states go, and the points that need them.",
                "a permission",
            ),
            by("Reading a past state changes nothing in the store.", &["kv951", "kv957"]),
            undisturbed(
                "The engine of a past state is open for reading only.",
                &["kv957"],
                "no defect of an engine changes a past state that is open",
            ),
            undisturbed(
                "It shows the same state as long as it lives, also while the store is changed, compacted and closed.",
                &["kv957"],
                "no defect of an engine changes a past state that is open",
            ),
            undisturbed(
                "Any number of them may be open.",
                &["kv957"],
                "no defect of an engine changes a past state that is open",
            ),
            by(
                "History. The history of a key has each version that a state in the window shows, in log order: its put or delete, and its LSN.",
                &["kv956"],
            ),
            by("Restoring writes a new store, and changes nothing in this one.", &["kv958"]),
            by(
                "The new store holds exactly the target's state, and its new changes get higher LSNs than the target.",
                &["kv958"],
            ),
            by("The directory must be missing or empty.", &["kv958"]),
            by(
                "A restore that fails, or that a crash ends, leaves no store that can be opened with another state.",
                &["kv959"],
            ),
            by(
                "A backup holds every state of the window, with the points, up to one LSN: at least every change of earlier calls.",
                &["kv962", "kv964"],
            ),
            undisturbed(
                "Writers go on meanwhile.",
                &["kv964"],
                "the defects of a backup show without writers",
            ),
            by("It opens for reading only, and then has the past states of its store.", &["kv962"]),
            by("Another backup into the same directory brings it up to date.", &["kv962"]),
            by(
                "A backup that fails, or that a crash ends, leaves each state that the earlier one held, unless it has expired since.",
                &["kv963"],
            ),
        ],
    },
    Section {
        title: "PointInTime::reach",
        file: "kv-core/src/point_in_time.rs",
        item: "fn reach(",
        judged: &[
            by("The states of the window that are targets: see Moments.", &["kv951", "kv962"]),
            not("As for window.", "refers to another method"),
        ],
    },
    Section {
        title: "PointInTime::points",
        file: "kv-core/src/point_in_time.rs",
        item: "fn points(",
        judged: &[
            by("The points, in the order of their names.", &["kv955"]),
            not("As for window.", "refers to another method"),
        ],
    },
    Section {
        title: "PointInTime::pin",
        file: "kv-core/src/point_in_time.rs",
        item: "fn pin(",
        judged: &[
            by("Gives the state of target a name of 1 to Point::NAME_LEN_MAX bytes.", &["kv955"]),
            by("The point is durable on return.", &["kv955", "kv961"]),
            by("It expires at expires_unix_ms, milliseconds since the Unix epoch.", &["kv955"]),
            by(
                "InvalidArgument for a name that a point has, or that none can have, and for one point too many; OutsideWindow; as for Engine::sync.",
                &["kv955"],
            ),
        ],
    },
    Section {
        title: "PointInTime::unpin",
        file: "kv-core/src/point_in_time.rs",
        item: "fn unpin(",
        judged: &[
            by("Removes a point, and says whether there was one.", &["kv955"]),
            by("That is durable on return.", &["kv955", "kv961"]),
            not("As for Engine::sync.", "refers to another method"),
        ],
    },
    Section {
        title: "PointInTime::read_at",
        file: "kv-core/src/point_in_time.rs",
        item: "fn read_at(",
        judged: &[
            by("Opens a past state for reading.", &["kv951"]),
            by("OutsideWindow; as for Engine::sync and Engine::get.", &["kv954"]),
        ],
    },
    Section {
        title: "PointInTime::history",
        file: "kv-core/src/point_in_time.rs",
        item: "fn history(",
        judged: &[
            by("The versions of key in the window, the oldest first.", &["kv956"]),
            by(
                "The oldest one may be older than the window: its put shows in the window's first state.",
                &["kv956"],
            ),
            not("As for read_at.", "refers to another method"),
        ],
    },
    Section {
        title: "PointInTime::plan",
        file: "kv-core/src/point_in_time.rs",
        item: "fn plan(",
        judged: &[
            by("What a restore of target would reach and read.", &["kv958"]),
            by("It writes nothing.", &["kv958"]),
            not("As for read_at.", "refers to another method"),
        ],
    },
    Section {
        title: "PointInTime::restore",
        file: "kv-core/src/point_in_time.rs",
        item: "fn restore(",
        judged: &[
            by("Writes a new store with the state of target to the directory into.", &["kv958"]),
            by(
                "InvalidArgument if into is not empty; I/O errors of into, which do not poison this store; as for read_at.",
                &["kv958"],
            ),
        ],
    },
    Section {
        title: "PointInTime::backup",
        file: "kv-core/src/point_in_time.rs",
        item: "fn backup(",
        judged: &[
            by(
                "Writes a backup to the directory into, which is missing, empty, or an earlier backup of this store.",
                &["kv962"],
            ),
            by("The backup is durable, and its bytes were read back.", &["kv963"]),
            by(
                "InvalidArgument if into is something else; I/O errors of into, which do not poison this store; as for read_at.",
                &["kv962"],
            ),
        ],
    },
];

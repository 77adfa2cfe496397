//! The table: each sentence of the contract, and the cases that judge it.

/// A sentence of the contract.
pub(crate) struct Judged {
    pub(crate) sentence: &'static str,
    /// The numbers of the cases.
    pub(crate) by: &'static [&'static str],
    /// The reason why no case judges it, or why no defect belongs to its cases.
    pub(crate) why_not: &'static str,
}

/// The documentation of an item.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// The file, from the root of the workspace.
    pub(crate) file: &'static str,
    /// The start of the line behind the documentation.
    pub(crate) item: &'static str,
    pub(crate) judged: &'static [Judged],
}

const fn by(sentence: &'static str, by: &'static [&'static str]) -> Judged {
    Judged { sentence, by, why_not: "" }
}

const fn undisturbed(sentence: &'static str, by: &'static [&'static str], why_not: &'static str) -> Judged {
    Judged { sentence, by, why_not }
}

const fn not(sentence: &'static str, why_not: &'static str) -> Judged {
    Judged { sentence, by: &[], why_not }
}

pub(crate) const INTRODUCTION: &str = "\
# The contract, sentence by sentence

Each sentence of the contract has a case of `kv-tests` that judges it, and a deliberate defect that
the case must find. A test holds this table against the documentation of `kv-core`, the list of
cases, and the lists of defects. Defects of two engines take part: `kv_tests::reference`, and the
paged engine of `kv-tests/tests/paged`. [testing.md](testing.md) explains the cases.
";

pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "The contract",
        file: "kv-core/src/engine.rs",
        item: "pub trait Engine: Debug",
        judged: &[
            not("A key-value storage engine.", "says what it is"),
            not(
                "Object-safe: Arc<dyn Engine> is how an application, a test suite or a benchmark holds one.",
                "the compiler judges it",
            ),
            by(
                "Keys and values are any bytes, the empty string included, up to the engine's Limits.",
                &["kv103", "kv113", "kv114", "kv115", "kv117", "kv118", "kv119"],
            ),
            by(
                "Order. Every change (a put, a delete that found its key, a batch that changed something) has an Lsn.",
                &["kv105", "kv112", "kv201", "kv704"],
            ),
            by(
                "The order of LSNs, the log order, is the order in which changes become visible: at every moment the readable state is the state after all changes up to some LSN and none beyond.",
                &["kv501", "kv706", "kv751", "kv756"],
            ),
            by(
                "LSNs grow strictly and are never used twice, not even for changes that a crash took away, nor in a store that became empty.",
                &["kv105", "kv110", "kv111", "kv309", "kv408", "kv420", "kv525", "kv704", "kv903"],
            ),
            not("An engine may skip LSNs.", "a permission"),
            by(
                "A call that changes nothing takes no LSN: a delete of an absent key, an empty batch, a batch that only deletes absent keys or puts and deletes the same absent key, a refused call.",
                &["kv102", "kv112", "kv202", "kv205", "kv208", "kv210"],
            ),
            by("Visible LSNs. last_lsn never decreases.", &["kv757", "kv842"]),
            by("A caller that has seen a change gets a last_lsn at or above its LSN.", &["kv706", "kv757"]),
            by("Changes up to the last_lsn that a caller got are visible to it.", &["kv757"]),
            by(
                "After an orderly close and an open, last_lsn is the same, and everything is durable.",
                &["kv110", "kv401", "kv418", "kv420", "kv523"],
            ),
            by(
                "Visibility. Operations are linearizable.",
                &["kv106", "kv107", "kv108", "kv751", "kv752", "kv756", "kv758"],
            ),
            by(
                "A change is visible before its call returns, and stays visible even if it does not become durable.",
                &["kv101", "kv701", "kv706", "kv711", "kv758", "kv817"],
            ),
            by("All changes of a batch become visible at once.", &["kv204", "kv752", "kv756"]),
            by(
                "Durability. durable_lsn never decreases, is at most last_lsn, and covers a change only after its bytes, and the directory entries that lead to them, were synced.",
                &["kv423", "kv501", "kv757", "kv816", "kv845"],
            ),
            by(
                "After any crash the recovered state is the state after a prefix of the log order.",
                &[
                    "kv501", "kv502", "kv503", "kv504", "kv507", "kv508", "kv510", "kv511", "kv524", "kv705",
                    "kv710", "kv753", "kv901", "kv904",
                ],
            ),
            by(
                "That prefix contains every change up to any durable LSN that a caller got, from this method, sync, wait_durable or poll_durable.",
                &["kv522", "kv801", "kv802", "kv808", "kv816", "kv902", "kv903"],
            ),
            by(
                "The PersistencePolicy decides how far durable changes may trail visible ones.",
                &["kv505", "kv509", "kv806", "kv827"],
            ),
            by(
                "Under a policy that says Acknowledge::WhenDurable a change is durable when its call returns, also if the policy holds or only writes.",
                &["kv801", "kv826"],
            ),
            not("Other callers may see it a little before.", "a permission"),
            by(
                "Between visible and durable lies process-safe: the change survives the death of the process, and not a power cut.",
                &["kv526", "kv529", "kv531"],
            ),
            by(
                "In an engine with the capability every change is process-safe when its call returns, under any policy.",
                &["kv502", "kv531", "kv532", "kv907"],
            ),
            by(
                "Pacing. An engine asks the policy after a change, and describes all changes that are not durable in Pending.",
                &["kv821", "kv823", "kv825", "kv834"],
            ),
            by("It does not ask while there are none.", &["kv822", "kv835"]),
            not(
                "It may dump earlier than the policy demands, for example for want of memory.",
                "a permission",
            ),
            by(
                "With threads it asks again when the time of the last answer has passed.",
                &["kv806", "kv807", "kv831", "kv832", "kv833"],
            ),
            by(
                "With inline background work nothing runs between two calls: the next change asks, also after that time.",
                &["kv825"],
            ),
            by(
                "A Write hands the pending changes to the operating system: they survive the death of the process, and are still pending until a sync.",
                &["kv502", "kv526", "kv529", "kv824", "kv902"],
            ),
            by("A later sync covers them.", &["kv527", "kv528", "kv530"]),
            by(
                "With inline background work a dump is over when the call returns that set it off.",
                &["kv825", "kv827", "kv828"],
            ),
            by(
                "Failure. A call that returns an error other than from a failed write or sync changed nothing.",
                &["kv203", "kv604", "kv622"],
            ),
            by(
                "A failed write or sync, or any other failed change to its files that a call reports, poisons the engine.",
                &["kv601", "kv602", "kv603", "kv612"],
            ),
            by("The call that poisons returns the failure that poisoned, not an earlier one.", &["kv612"]),
            by(
                "Every later change, sync, wait_durable and poll_durable beyond durable_lsn returns Error::Poisoned with that failure.",
                &["kv601", "kv603", "kv607", "kv703", "kv755", "kv818"],
            ),
            by("Reads go on with the state as it was visible, and durable_lsn stands still.", &["kv607"]),
            by("A failed sync is never tried again.", &["kv530", "kv601", "kv602", "kv818"]),
            not(
                "A change whose own call failed that way may or may not be in the recovered state, as for a crash.",
                "a permission",
            ),
            not(
                "With inline background work, a change may set off a dump that its policy does not wait for.",
                "a permission",
            ),
            by("If that dump fails, the change is visible although its call returns the error.", &["kv601"]),
            by(
                "Reopening recovers, with or without a reboot in between.",
                &["kv601", "kv602", "kv603", "kv606", "kv610"],
            ),
            not(
                "After a failed sync, the page cache may show bytes, and the directory names, that no later sync saves.",
                "the fault model simulates it",
            ),
            by(
                "So an engine writes bytes and files again that it does not know to be synced, before it calls them durable.",
                &["kv511", "kv601"],
            ),
            not(
                "Refusals. Four failures need not poison: a full disk and a file at the size limit of the process, both DiskFull, a lack of file descriptors, and a lack of memory, both Io errors.",
                "a permission",
            ),
            not("The engine may refuse the call instead.", "a permission"),
            by(
                "A refused call has changed nothing: neither a key nor last_lsn, and nothing that a crash could show.",
                &["kv622", "kv625", "kv843"],
            ),
            not("Changes of earlier calls may have become durable.", "a permission"),
            by("Once the reason is gone the engine takes changes again.", &["kv604", "kv622", "kv625"]),
            by("So a DiskFull that does not poison has changed nothing.", &["kv622", "kv623", "kv624"]),
            not("A full disk has a way out.", "a heading"),
            by(
                "With no byte free on the disk a store can be opened, read and closed, and its keys can be deleted one by one.",
                &["kv621"],
            ),
            not("If a put has poisoned the engine, it must be reopened first.", "a permission"),
            by(
                "Deleting gives the space of the deleted keys back, to the store or to the disk.",
                &["kv621", "kv682"],
            ),
            not("An engine holds space for that: see Reserve.", "advice to the caller"),
            by(
                "Leftovers. A file that cannot be removed does no harm: the engine goes on, and tries again a bounded number of times.",
                &["kv626"],
            ),
            by(
                "Neither a failed call nor a crash leaves files behind that add up: the bytes on the disk stay in proportion to the data, however often the store is opened.",
                &["kv414", "kv685", "kv686"],
            ),
            by(
                "Resources. The same work repeated takes no more than it took before: the number and length of files, of open files, and of threads stay within bounds that do not depend on how long the engine runs.",
                &["kv681", "kv685", "kv687"],
            ),
            by(
                "Deleting all keys and compacting, or opening again where the engine does not compact on request, gives most of their space on the disk back.",
                &["kv682"],
            ),
            by("A closed engine holds no lock and no thread.", &["kv410", "kv435", "kv683", "kv906"]),
            by(
                "Its last handle, once dropped, leaves no open file and nothing else behind.",
                &["kv435", "kv683", "kv906"],
            ),
            by(
                "Checkpoints. In an engine with the capability, a checkpoint makes all changes before it durable.",
                &["kv533"],
            ),
            by(
                "An open that starts from a checkpoint shows the state that any other open would show.",
                &["kv533", "kv534"],
            ),
            not("Damage at rest.", "a heading"),
            not(
                "The files of a closed store may be changed from outside.",
                "the next sentence says the demand",
            ),
            by(
                "The next open refuses the store with an error that names the file, or it shows the state as it was before.",
                &[
                    "kv651", "kv653", "kv654", "kv655", "kv656", "kv657", "kv658", "kv659", "kv660", "kv661",
                    "kv662", "kv663", "kv664", "kv905",
                ],
            ),
            not(
                "An engine with the capability may open a store without a look at all of its files.",
                "a permission",
            ),
            by(
                "A read of a damaged record is then an error that names the file.",
                &["kv651", "kv653", "kv657"],
            ),
            by(
                "This holds for each flipped bit, zeroed or exchanged part, cut, and for missing, exchanged and foreign files.",
                &["kv651", "kv653", "kv654", "kv655", "kv656", "kv657", "kv661", "kv662", "kv663", "kv664"],
            ),
            by(
                "After a crash, damage at the end of the log may look like the crash: it may cost the changes of the last sync.",
                &["kv652", "kv665"],
            ),
            by(
                "An open that is refused has changed nothing.",
                &["kv411", "kv606", "kv658", "kv684", "kv905"],
            ),
            not(
                "A checksum of 32 bits misses one in 2^32 of the damages that no single check catches for certain.",
                "a limit",
            ),
            by("Bytes from the disk never panic.", &["kv657", "kv658", "kv905"]),
            not("Size limits.", "a heading"),
            by(
                "A key, value or batch over its limit is refused with Error::TooLarge and changes nothing; a batch with one bad entry changes nothing.",
                &["kv104", "kv116", "kv203", "kv207"],
            ),
            by(
                "A get, read or delete of a key over the limit is refused in the same way.",
                &["kv104", "kv116", "kv122"],
            ),
            by(
                "But a store that was written under higher limits can be read, scanned and emptied under lower ones: a key that is present is found and deleted, also by a batch.",
                &["kv413"],
            ),
            by(
                "An absent key over the limit is TooLarge, or merely absent where one as long was present at open.",
                &["kv413"],
            ),
            by(
                "Close. After close every operation but close, stats, last_lsn and durable_lsn returns Error::Closed, and the directory can be opened again.",
                &["kv401", "kv404", "kv431", "kv432", "kv436", "kv438"],
            ),
            by(
                "Another close does nothing: it answers Ok if the first one succeeded, and an error if it failed.",
                &["kv404", "kv432", "kv611", "kv708"],
            ),
            by(
                "Dropping the last handle without close closes too, and ignores errors.",
                &["kv402", "kv433", "kv434", "kv709"],
            ),
            by(
                "A close makes every change durable before it gives the directory away, and leaves a proof of where the data end: a store that was closed and then cut short is damaged.",
                &["kv433", "kv523", "kv654", "kv660", "kv707", "kv754"],
            ),
            by(
                "Place. An open store uses the directory that it opened, through a handle, and no other one: also after another process renames it, and puts something else at its path.",
                &["kv419", "kv421", "kv422"],
            ),
            by(
                "After the directory or its lock file was removed or replaced, the next sync of a change fails and poisons, and nothing more becomes durable.",
                &["kv423", "kv424"],
            ),
            by(
                "Reads go on, but a value that has to be read from a removed file is an Io error.",
                &["kv423"],
            ),
            by(
                "A new store may begin in a directory that holds nothing but files of the system, and leaves these alone.",
                &["kv406", "kv412", "kv417"],
            ),
            by(
                "Any number of threads and processes may create a store in the same place at the same time: one opens it, the others are Locked.",
                &["kv426", "kv427"],
            ),
            not("Reading only.", "a heading"),
            by(
                "A store that was opened with read_only shows the state that any other open would recover, and changes nothing on the disk.",
                &["kv441", "kv442"],
            ),
            by(
                "It calls durable only the changes that it knows to be synced: it cannot sync the others. put, delete, apply, sync, and wait_durable and poll_durable beyond durable_lsn, are Error::ReadOnly.",
                &["kv442", "kv443"],
            ),
            by(
                "Readers exclude a writer, and a writer excludes readers: the later one is Locked.",
                &["kv441"],
            ),
            by(
                "Exclusiveness. A second open of the same directory, by any process, fails with Error::Locked until the first is closed or its process is gone.",
                &["kv403", "kv415", "kv419", "kv425"],
            ),
            by(
                "Callbacks of read, read_many and scan may call any method of the same engine except close, for any key, present or new.",
                &["kv302", "kv307"],
            ),
            by(
                "They may take any time: no other thread waits for them, and the memory that they keep is bounded.",
                &["kv308"],
            ),
            not("There are no default methods: a forgotten one does not compile.", "the compiler judges it"),
            not("Conveniences are in EngineExt.", "refers to another sentence"),
        ],
    },
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
                "TooLarge, Closed, or an I/O or corruption error if the value had to be read from disk.",
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
            by("The I/O error of a failed dump, Poisoned, Closed.", &["kv431", "kv603"]),
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
                "Every engine fills in keys, last_lsn, durable_lsn, changes and recovery, exactly.",
                &["kv841", "kv842", "kv843", "kv844"],
            ),
            not(
                "It leaves another field at zero if it has no such thing (a table without a log has no segments), or does not measure it.",
                "a permission",
            ),
            by(
                "A field that is not zero is right: live_bytes is exact, and disk_bytes counts every file that holds changes, by its length.",
                &["kv841", "kv844", "kv845"],
            ),
        ],
    },
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
                "So no change of the state was made after that time, and a later time never leads to an earlier state, as long as the clock is not set back.",
                &["kv953"],
            ),
            by("A change that a sync made durable by that time is in the state.", &["kv953"]),
            by("The present leads to the newest change.", &["kv953"]),
            not("Points. A point is a state with a name.", "a definition"),
            by("It keeps the window open back to its state, until it is removed or expires.", &["kv955"]),
            by("A point survives a close and a crash.", &["kv955", "kv961"]),
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

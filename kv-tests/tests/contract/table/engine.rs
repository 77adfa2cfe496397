//! The contract of an engine as a whole.

use super::{Section, by, not};

pub(super) const SECTIONS: &[Section] = &[Section {
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
                "kv501", "kv502", "kv503", "kv504", "kv507", "kv508", "kv510", "kv511", "kv524", "kv535",
                "kv536", "kv537", "kv538", "kv705", "kv710", "kv753", "kv901", "kv904",
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
            "In an engine with the capability process_safe every change is process-safe when its call returns, under any policy.",
            &["kv502", "kv531", "kv532", "kv535", "kv539", "kv540", "kv907", "kv908"],
        ),
        by(
            "Pacing. An engine asks the policy after a change, and describes all changes that are not durable in Pending.",
            &["kv821", "kv823", "kv825", "kv834"],
        ),
        by("It does not ask while there are none.", &["kv822", "kv835"]),
        not("It may dump earlier than the policy demands, for example for want of memory.", "a permission"),
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
            "With inline background work, the call that sets off a dump returns after the dump is over.",
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
            "Every later change and every later sync returns Error::Poisoned with that failure.",
            &["kv601", "kv603", "kv607", "kv703", "kv755", "kv818"],
        ),
        by(
            "So do wait_durable and poll_durable, for an LSN beyond durable_lsn.",
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
        not("Refusals. Six failures need not poison.", "a permission"),
        not(
            "Five are the lack of a resource: space on the disk, file descriptors, memory, segments, or shared memory where process safety is required.",
            "a permission",
        ),
        not("The sixth is a file at the size limit of the process.", "a permission"),
        not("Error::is_refusal tells them.", "says where"),
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
            "Checkpoints. In an engine with the capability checkpoint, a checkpoint makes all changes before it durable.",
            &["kv533"],
        ),
        by(
            "An open that starts from a checkpoint shows the state that any other open would show.",
            &["kv533", "kv534"],
        ),
        not("Damage at rest.", "a heading"),
        not("The files of a closed store may be changed from outside.", "the next sentence says the demand"),
        by(
            "The next open refuses the store with an error that names the file, or it shows the state as it was before.",
            &[
                "kv651", "kv653", "kv654", "kv655", "kv656", "kv657", "kv658", "kv659", "kv660", "kv661",
                "kv662", "kv663", "kv664", "kv905",
            ],
        ),
        not(
            "An engine with the capability checkpoint may open a store without a look at all of its files.",
            "a permission",
        ),
        by("A read of a damaged record is then an error that names the file.", &["kv651", "kv653", "kv657"]),
        by(
            "This holds for each flipped bit, zeroed or exchanged part, cut, and for missing, exchanged and foreign files.",
            &["kv651", "kv653", "kv654", "kv655", "kv656", "kv657", "kv661", "kv662", "kv663", "kv664"],
        ),
        by(
            "After a crash, damage at the end of the log may look like the crash: it may cost the changes of the last sync.",
            &["kv652", "kv665"],
        ),
        by("An open that is refused has changed nothing.", &["kv411", "kv606", "kv658", "kv684", "kv905"]),
        not(
            "Some damage no check catches for certain: of that, a checksum of 32 bits misses one in 2^32.",
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
        by("A call with an absent key over the limit answers TooLarge.", &["kv413"]),
        not(
            "If the store held a key as long when it was opened, the call may answer that the key is absent.",
            "a permission",
        ),
        by(
            "Close. After close every operation but close, stats, last_lsn and durable_lsn returns Error::Closed, and the directory can be opened again.",
            &["kv401", "kv404", "kv431", "kv432", "kv436", "kv438"],
        ),
        by("A change that meets a running close may be refused so.", &["kv436"]),
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
        by("Reads go on, but a value that has to be read from a removed file is an Io error.", &["kv423"]),
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
        by("Readers exclude a writer, and a writer excludes readers: the later one is Locked.", &["kv441"]),
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
}];

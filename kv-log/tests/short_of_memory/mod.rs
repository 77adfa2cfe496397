use kv_core::{OpenOptions, Scale};
use kv_log::Options;

/// Options with as little memory as a store can run with. Where units are to be tiny, they are the
/// smallest there are: then a head and an index of 16 shards leave no room for any other segment.
/// Hardly a file stays open.
pub(crate) fn short_of_memory(options: &OpenOptions) -> Options {
    let mut options = match options.scale {
        Scale::Normal => Options::from(options),
        Scale::Tiny => Options {
            segment_bytes: 1024,
            unflushed_bytes_max: 1024,
            index_shards: 8,
            ..Options::from(options)
        },
    };
    options.memory_budget = Some(options.unflushed_bytes_max + 5 * options.segment_bytes as u64);
    options.open_files_max = 2;
    options
}

use kv_core::{OpenOptions, Scale};
use kv_log::Options;

/// Options with the smallest memory budget. At tiny scale, the units are the smallest ones: an
/// active segment and an index of 16 shards then leave no room for another segment. Few files stay
/// open.
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

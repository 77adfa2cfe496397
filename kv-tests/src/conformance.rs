//! The suite as plain `#[test]`s, for test targets with the usual harness.

use crate::runner::{Suite, Verdict, run_case};
use crate::{Settings, all_cases};
use kv_core::EngineFactory;
use std::sync::Arc;

/// The whole suite against one engine as plain `#[test]` functions, beside other tests in the same
/// target. Each group becomes a module.
///
/// [`main!`](crate::main) shows a case that the engine cannot take part in as ignored. A plain test
/// cannot decide that while it runs: it passes, and prints the reason. For the same reason there
/// are no opt-outs, and the cases that kill a process are skipped. A case of your own is a
/// `#[test]` that calls [`run_case`](crate::run_case).
///
/// ```no_run
/// # use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result};
/// # struct MyFactory;
/// # impl EngineFactory for MyFactory {
/// #     fn name(&self) -> &str { "mine" }
/// #     fn capabilities(&self) -> Capabilities { Capabilities::new() }
/// #     fn open(&self, _: &std::path::Path, _: &Env, _: &OpenOptions) -> Result<std::sync::Arc<dyn Engine>> {
/// #         Err(kv_core::Error::Closed)
/// #     }
/// # }
/// kv_tests::conformance!(MyFactory);
/// ```
#[macro_export]
macro_rules! conformance {
    ($factory:expr $(,)?) => {
        fn kv_tests_factory() -> ::std::sync::Arc<dyn $crate::kv_core::EngineFactory> {
            ::std::sync::Arc::new($factory)
        }
        const KV_TESTS_SUITE: $crate::Suite = $crate::Suite {
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            target: env!("CARGO_CRATE_NAME"),
            file: file!(),
            cases: &[],
            skip: &[],
            images: option_env!("CARGO_TARGET_TMPDIR"),
        };
        $crate::for_each_case!($crate::plain_tests);
    };
}

/// Plain tests of the cases of all groups.
#[doc(hidden)]
#[macro_export]
macro_rules! plain_tests {
    ($($group:ident { $($case:ident)* })*) => {
        $(mod $group {
            $(#[test]
            fn $case() {
                $crate::check_plain(
                    concat!(stringify!($group), "::", stringify!($case)),
                    &super::kv_tests_factory(),
                    &super::KV_TESTS_SUITE,
                );
            })*
        })*
    };
}

/// Calls a macro with the ids of all cases, because macros cannot call [`all_cases`]. A test
/// compares the two.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_case {
    ($($then:tt)*) => {
        $($then)*! {
            model {
                required_kv101_last_put_wins
                required_kv102_delete_and_put_again
                required_kv103_any_bytes
                required_kv104_limits
                required_kv105_lsns_grow
                required_kv106_random_operations
                required_kv107_shrinking_model
                required_kv108_values_outlive_their_keys
                required_kv109_reading_many_keys
            }
            batch {
                required_kv201_all_under_one_lsn
                required_kv202_nothing_to_change
                required_kv203_one_bad_entry
                stochastic_kv204_visible_at_once
                required_kv205_nothing_to_change_after_a_crash
            }
            scan {
                required_kv301_every_key_once
                required_kv302_callbacks_may_call_the_engine
                stochastic_kv303_stable_keys_under_writers
            }
            lifecycle {
                required_kv401_reopen_after_close
                required_kv402_drop_closes
                required_kv403_second_open_is_refused
                required_kv404_closed_means_closed
                required_kv405_missing_is_not_created
                required_kv406_foreign_directory
                required_kv407_nonsense_options
                required_kv408_lsns_grow_though_nothing_is_left
                required_kv409_capabilities_are_true
                required_kv410_a_closed_handle_holds_nothing
                required_kv411_unwritable_directory
                required_kv412_system_files_are_left_alone
                required_kv413_lowered_limits
                required_kv414_short_runs
            }
            directory {
                required_kv421_moved_on_the_simulated_disk
                required_kv422_moved_on_the_real_disk
                required_kv423_a_removed_directory_is_noticed
                required_kv424_a_lost_lock_file_is_noticed
                required_kv425_second_open_without_lock_file
                stochastic_kv426_reopen_while_processes_start
                stochastic_kv427_racing_creators
            }
            read_only {
                required_kv441_readers_share_the_store
                required_kv442_nothing_is_written
                required_kv443_changes_are_refused
                required_kv444_unsupported_where_not_offered
            }
            crash {
                required_kv501_power_cut_at_every_operation
                required_kv502_process_death_at_every_operation
                required_kv503_crash_during_recovery
                required_kv504_nothing_comes_back
                required_kv505_loss_stays_within_the_window
                required_kv506_same_seed_same_run
                required_kv507_torn_at_every_byte
                required_kv508_every_sequence_of_three
                required_kv509_periodic_keeps_its_window
                stochastic_kv510_background_work_under_the_cut
                required_kv511_power_cut_after_a_death
                required_kv522_durable_survives_power_cut
                required_kv523_closed_is_durable
                required_kv524_recovered_keys_stay_deleted
                required_kv525_lsns_are_never_reused
                required_kv526_a_write_survives_a_death
                required_kv527_a_later_sync_covers_writes
                required_kv528_compaction_between_write_and_sync
                required_kv529_a_thread_writes
                required_kv530_a_failed_sync_after_a_write_poisons
            }
            errors {
                required_kv601_every_operation_fails_once
                required_kv602_every_operation_fails_for_good
                required_kv603_failed_sync_poisons
                required_kv604_disk_full
                required_kv605_short_transfers_and_interruptions
                required_kv606_failed_open_does_no_harm
                required_kv607_poisoned_store_reads_and_closes
                optional_kv608_a_panic_loses_nothing
                required_kv609_read_errors
                required_kv610_failed_recovery_does_no_harm
                required_kv611_a_failed_close_fails_again
                required_kv612_the_failure_is_told_where_it_happens
            }
            disk {
                required_kv621_way_out_of_a_full_disk
                required_kv622_a_refused_change_changes_nothing
                required_kv623_a_limit_of_file_sizes_is_a_full_disk
                required_kv624_allocation_reserves_nothing
                required_kv625_no_descriptors
                required_kv626_refused_removals
            }
            corruption {
                required_kv651_flipped_bits
                required_kv652_flipped_bits_after_a_crash
                required_kv653_zeroed_sectors
                required_kv654_truncated_files
                required_kv655_missing_files
                required_kv656_swapped_and_foreign_files
                required_kv657_garbage
            }
            concurrency {
                stochastic_kv701_readers_see_whole_and_growing_values
                stochastic_kv702_group_commit_wakes_everybody
                stochastic_kv703_a_failed_sync_wakes_everybody
                stochastic_kv704_lsns_are_unique
                stochastic_kv705_power_cut_under_writers
                stochastic_kv706_what_was_seen_counts_as_visible
            }
            linearizability {
                stochastic_kv751_single_keys
                stochastic_kv752_batches
                stochastic_kv753_power_cut_under_threads
                stochastic_kv754_close_under_threads
                stochastic_kv755_waiters_under_a_failing_disk
            }
            durability {
                required_kv801_always_is_durable_on_return
                required_kv802_sync_covers_what_was_visible
                optional_kv803_manual_waits_for_the_caller
                required_kv806_periodic_dumps_by_itself
                required_kv807_a_policy_may_become_impatient
                required_kv808_a_future_waits_for_durability
                required_kv809_futures_share_syncs
                required_kv810_a_failing_disk_ends_every_future
                required_kv811_a_dropped_future_leaves_nothing
                stochastic_kv812_futures_among_threads
                required_kv813_a_waker_may_hold_the_last_handle
            }
            policy {
                required_kv821_every_question_is_true
                required_kv822_an_idle_store_asks_nothing
                required_kv823_durable_changes_are_not_pending
                required_kv824_written_changes_are_still_pending
                required_kv825_answers_are_obeyed
                required_kv826_when_durable_waits_whatever_is_decided
                required_kv827_limits_are_met_exactly
                optional_kv828_hold_holds
                required_kv831_asked_again_when_the_time_has_passed
                required_kv832_a_sooner_time_counts
                required_kv833_asked_again_and_again
                stochastic_kv834_changes_during_a_dump_stay_pending
                required_kv835_an_idle_thread_asks_nothing
            }
            process {
                stochastic_kv901_kill_during_writes
                stochastic_kv902_kill_after_writes
            }
        }
    };
}

/// Runs one case as a plain test.
///
/// # Panics
/// When the engine fails the case, with the report; when `id` names no case; when an environment
/// variable of the suite has an invalid value.
#[doc(hidden)]
pub fn check_plain(id: &str, factory: &Arc<dyn EngineFactory>, suite: &Suite) {
    let settings = Settings::from_env().unwrap_or_else(|complaint| panic!("kv-tests: {complaint}"));
    let case = all_cases().into_iter().find(|case| case.id == id).expect("the list of ids is up to date");
    match run_case(&case, factory, &settings).0 {
        Verdict::Passed => {}
        Verdict::Failed(failure) => panic!("{}", suite.report(&case, failure, &settings)),
        Verdict::Skipped(reason) => {
            #[expect(clippy::print_stdout, reason = "the report of a test")]
            {
                println!("{id} is skipped: {reason}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::all_cases;

    macro_rules! ids {
        ($($group:ident { $($case:ident)* })*) => {
            vec![$($(concat!(stringify!($group), "::", stringify!($case))),*),*]
        };
    }

    #[test]
    fn the_list_for_macros_is_the_list_of_cases() {
        let listed: Vec<&str> = for_each_case!(ids);
        let cases: Vec<&str> = all_cases().iter().map(|case| case.id).collect();
        assert_eq!(listed, cases);
    }
}

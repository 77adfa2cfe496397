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
        const KV_TESTS_SUITE: $crate::Suite = $crate::suite!(&[], &[]);
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
                required_kv110_an_empty_store_keeps_its_lsn
                required_kv111_crashes_use_no_lsn_twice
                required_kv112_only_changes_take_lsns
                required_kv113_every_size
                required_kv114_kinds_of_keys
                required_kv115_empty_is_not_absent
                required_kv116_limits_are_exact
                required_kv117_large_values
                required_kv118_more_keys_than_two_bytes_count
                required_kv119_values_that_look_like_files
                required_kv120_read_many_in_order_and_once
                required_kv121_read_many_of_thousands
                required_kv122_read_many_is_refused_as_a_whole
                required_kv123_waits_at_the_edges
            }
            batch {
                required_kv201_all_under_one_lsn
                required_kv202_nothing_to_change
                required_kv203_one_bad_entry
                stochastic_kv204_visible_at_once
                required_kv205_nothing_to_change_after_a_crash
                required_kv206_more_changes_than_two_bytes_count
                required_kv207_exactly_at_the_limit
                required_kv208_every_short_sequence
                required_kv209_one_key_many_times
                required_kv210_only_deletes
            }
            scan {
                required_kv301_every_key_once
                required_kv302_callbacks_may_call_the_engine
                stochastic_kv303_stable_keys_under_writers
                required_kv304_callbacks_change_other_keys
                required_kv305_a_break_ends_the_scan_only
                required_kv306_nothing_to_visit
                required_kv307_every_method_in_every_callback
                required_kv308_no_thread_waits_for_a_callback
                required_kv309_changes_in_callbacks_survive
                stochastic_kv310_scans_while_keys_come_and_go
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
                required_kv415_locked_across_processes
                required_kv416_a_failed_open_holds_nothing
                required_kv417_odd_places
                required_kv418_other_options
                required_kv419_stores_are_independent
                required_kv420_opens_change_nothing
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
            handles {
                required_kv431_every_operation_after_close
                required_kv432_every_operation_after_a_failed_close
                required_kv433_close_and_drop_save_everything
                required_kv434_dropping_a_clone_does_nothing
                required_kv435_nothing_of_a_dropped_store_is_left
                stochastic_kv436_operations_during_close
                required_kv437_borrowed_values_survive_a_close
                optional_kv438_idle_operations_after_close
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
                required_kv531_process_safe_changes_survive_a_death
                stochastic_kv532_process_safe_changes_of_threads
                required_kv533_a_checkpoint_makes_changes_durable
                required_kv534_a_crash_at_every_operation_of_a_checkpoint
                required_kv535_deaths_of_the_next_openings
                required_kv536_a_passed_over_tail_is_stale
                required_kv537_a_copy_adopts_nothing
                required_kv538_damage_in_shared_memory
                required_kv539_statistics_of_process_safety
                required_kv540_objects_go_with_a_clean_close
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
                required_kv658_flipped_bits_in_every_layout
                required_kv659_zeroed_blocks
                required_kv660_cut_tails
                required_kv661_shifted_and_repeated_bytes
                required_kv662_swapped_files_of_equal_length
                required_kv663_swapped_blocks
                required_kv664_foreign_files_in_every_layout
                required_kv665_damage_before_a_durable_change
            }
            resources {
                required_kv681_the_same_work_takes_no_more
                required_kv682_an_emptied_store_is_small
                required_kv683_a_dropped_engine_leaves_nothing
                required_kv684_a_failed_open_leaves_nothing
                required_kv685_opening_again_and_again
                required_kv686_crashes_leave_no_strays
                required_kv687_overwriting_one_key
            }
            concurrency {
                stochastic_kv701_readers_see_whole_and_growing_values
                stochastic_kv702_group_commit_wakes_every_waiter
                stochastic_kv703_a_failed_sync_wakes_every_waiter
                stochastic_kv704_lsns_are_unique
                stochastic_kv705_power_cut_under_writers
                stochastic_kv706_what_was_seen_counts_as_visible
                required_kv707_a_close_keeps_the_directory
                required_kv708_two_closes_at_once
                required_kv709_a_drop_during_a_dump
                stochastic_kv710_writers_beside_a_slow_disk
                stochastic_kv711_compaction_beside_writers
            }
            linearizability {
                stochastic_kv751_single_keys
                stochastic_kv752_batches
                stochastic_kv753_power_cut_under_threads
                stochastic_kv754_close_under_threads
                stochastic_kv755_waiters_under_a_failing_disk
                stochastic_kv756_batches_over_many_keys
                stochastic_kv757_lsns_beside_what_is_visible
                stochastic_kv758_keys_stay_while_others_come_and_go
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
                required_kv816_a_caller_joins_a_sync
                required_kv817_a_change_comes_during_a_dump
                required_kv818_a_failed_sync_ends_every_call
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
            stats {
                required_kv841_follow_every_operation
                required_kv842_describe_the_recovered_store
                required_kv843_do_not_count_what_was_refused
                required_kv844_of_a_poisoned_engine
                required_kv845_measure_the_disk
            }
            process {
                stochastic_kv901_kill_during_writes
                stochastic_kv902_kill_after_writes
                required_kv903_killed_after_every_answer
                stochastic_kv904_killed_within_an_operation
                required_kv905_damage_on_real_files
                required_kv906_a_closed_store_holds_no_file_and_no_thread
                stochastic_kv907_kill_of_a_process_safe_engine
                stochastic_kv908_kills_of_threads_under_every_policy
            }
            moments {
                required_kv951_every_lsn_of_a_history
                required_kv952_expired_states_go
                required_kv953_times_are_rounded_down
                required_kv954_the_window_is_named
                required_kv955_points_hold_their_states
                required_kv956_histories_have_every_version
                required_kv957_a_past_state_stays
                required_kv958_a_restore_is_a_store
                required_kv959_a_failed_restore_leaves_no_store
                required_kv960_a_crash_leaves_the_window
                required_kv961_points_survive_a_crash
                required_kv962_a_backup_holds_every_state
                required_kv963_a_failed_backup_leaves_the_earlier_one
                stochastic_kv964_a_backup_under_writers_is_a_prefix
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

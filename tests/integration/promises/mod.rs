//! The eight promises of the manual, one file each.

mod promise_1_a_reader_never_sees_half_a_file;
mod promise_2_a_failure_never_costs_a_good_token;
mod promise_3_one_refresh_one_call;
mod promise_4_expires_in_is_a_promise;
mod promise_5_no_secret_leaves;
mod promise_6_strangers_get_nothing;
mod promise_7_a_dead_token_heals;
mod promise_8_someone_can_act_on_every_message;

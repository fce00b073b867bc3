//! Generates load, and counts what arrives: the epoll loop with its connections, subscribers, publishers, and a
//! tenant that is watched beside the load.

mod burst;
pub(crate) mod closed_loop;
pub(crate) mod delivery_check;
pub(crate) mod engine;
pub(crate) mod h2;
pub(crate) mod interval;
pub(crate) mod measured_load;
pub(crate) mod probes;
pub(crate) mod quiet_tenant;
pub(crate) mod stall_detector;
pub(crate) mod stream_load;
pub(crate) mod stream_reader;
pub(crate) mod stream_state;
pub(crate) mod subscriber_threads;
pub(crate) mod subscribers;
pub(crate) mod wave;

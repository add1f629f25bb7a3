//! A drop-in `libnccl.so.2` whose communicators are watched worlds.

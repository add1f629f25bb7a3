//! A double of nccl.

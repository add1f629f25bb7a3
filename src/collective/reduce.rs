//! Kernels.
use crate::transport::ReduceFn;
use crate::types::{DataType, Reduction};
/// The operator.
pub fn kernel(_dtype: DataType, _reduction: Reduction) -> ReduceFn {
    todo!()
}

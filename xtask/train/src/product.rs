//! Matrix products on slices.

/// `dst += lhs * rhs`, for (m, k) by (k, n) by rows; an operand with `true` is stored transposed.
///
/// # Panics
///
/// When a slice has another length.
pub fn add_product(
    (m, n, k): (usize, usize, usize),
    dst: &mut [f32],
    (lhs, lhs_transposed): (&[f32], bool),
    (rhs, rhs_transposed): (&[f32], bool),
) {
    assert!(dst.len() == m * n && lhs.len() == m * k && rhs.len() == k * n);
    // Strides of columns and rows.
    let strides = |rows: usize, columns: usize, transposed: bool| match transposed {
        true => (rows as isize, 1),
        false => (1, columns as isize),
    };
    let (lhs_column, lhs_row) = strides(m, k, lhs_transposed);
    let (rhs_column, rhs_row) = strides(k, n, rhs_transposed);
    // SAFETY: the lengths are those that the strides reach, by the assertion above, and `dst` is borrowed exclusively, so it
    // overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            n as isize,
            true,
            lhs.as_ptr(),
            lhs_column,
            lhs_row,
            rhs.as_ptr(),
            rhs_column,
            rhs_row,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

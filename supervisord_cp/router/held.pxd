cpdef bint begins_with_error(bytes data)

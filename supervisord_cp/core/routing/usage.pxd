cpdef object read_usage(bytes text)

cpdef bytes id_line(str request_id)
cpdef bytes messages_line(str request_id)

"""Built-in policies, written against `supervisord_cp.policy` alone, exactly like a user's file."""

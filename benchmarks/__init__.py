"""Measurements that state what they found, next to a bound where one is promised."""

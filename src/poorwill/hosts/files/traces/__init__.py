"""Traces of requests that people have: published ones, logs of servers, tables of their own."""

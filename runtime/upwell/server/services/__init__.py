"""What somebody has to do now and then for a store. Several may do each at once; nothing here knows of HTTP.

A server does it, and so does a script that serves its flows with no server beside it.
"""

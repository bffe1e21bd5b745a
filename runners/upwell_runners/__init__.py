"""The task runners that come with upwell; `upwell` finds them through entry points and never imports them."""

# Data that does not fit the model or itself stops a run before its first step.
_base_ = ['./reliability.py']

default_hooks = dict(bad_data=dict(type='RFDETRBadDataHook'))

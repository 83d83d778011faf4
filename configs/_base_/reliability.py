# Runs that can be left and entered at any step, with complete checkpoints.
_base_ = ['./schedule.py', './runtime.py']

train_cfg = dict(type='RFDETRTrainLoop')
default_hooks = dict(checkpoint=dict(type='RFDETRCheckpointHook'))

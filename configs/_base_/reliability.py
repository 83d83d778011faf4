# Runs that can be left and entered at any step, and stop before they are ruined.
_base_ = ['./schedule.py', './runtime.py']

train_cfg = dict(type='RFDETRTrainLoop')
default_hooks = dict(
    checkpoint=dict(type='RFDETRCheckpointHook'),
    non_finite=dict(type='RFDETRNonFiniteHook', skip=0),
)

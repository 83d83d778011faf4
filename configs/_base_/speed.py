# Less memory lost to gaps on a GPU. Faster there, and left to each config:
# model.cuda_graphs=True, model.compile=dict(dynamic=False), and solver='device' of
# model.train_cfg.assigner; see docs/performance.md.
_base_ = ['./analysis.py']

default_hooks = dict(allocator=dict(type='RFDETRAllocatorHook'))

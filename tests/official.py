"""The official package's side of a comparison; needs ``rfdetr==1.11.2``, not mmdet.

A case is a dict of plain values:

- ``model``: official names of sizes (``hidden_dim``, ``num_queries`` ...) that differ
  from those of ``config_class``; ``vit`` in it holds sizes of the transformer
  encoder, which the official package knows for its own variants only;
- ``config_class``: official configuration to start from, Nano if left out;
- ``seed``: of weights, images and objects (see :mod:`tests.golden_rule`);
- ``batch_size`` (height, width) and ``sizes`` of the images, padded to it; without
  them a fresh model is described;
- ``original_sizes`` (height, width) that detections are scaled to, ``sizes`` if left
  out;
- ``counts``: objects of each image. With them the case is trained for one step,
  without them it is evaluated;
- ``labels``: those of the objects lie below; all of a schema of keypoints, or of the
  model, if left out;
- ``steps``: so many optimizer steps, step i on the batch of ``seed + i``;
- ``criterion``: official switches of the loss, for training;
- ``lora``: true for a model with adapters, which is described, evaluated and trained;
  that needs ``rfdetr[lora,train]``.

``python -m tests.official REQUEST.json ANSWER.npz`` runs the official side in an
environment of its own: the request is a list of cases, and the answer holds the
arrays of case i under ``i/<name>``.
"""

import contextlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch

from tests import golden_rule


def namespace(case):
    """The official package's arguments of a case."""
    from rfdetr import config
    from rfdetr._namespace import _namespace_from_configs

    model = getattr(config, case.get('config_class', 'RFDETRNanoConfig'))
    model = model(pretrain_weights=None, device='cpu')
    train = config.TrainConfig
    if model.segmentation_head:
        train = config.SegmentationTrainConfig
    elif getattr(model, 'use_grouppose_keypoints', False):
        train = config.KeypointTrainConfig
    arguments = _namespace_from_configs(model, train(dataset_dir='.', output_dir='.'))
    # Any name: it is not read, but None would fetch weights from the network.
    arguments.pretrain_weights = 'none'
    changes = {**case.get('model', {}), **case.get('criterion', {})}
    changes.pop('vit', None)
    for name, value in changes.items():
        if not hasattr(arguments, name):
            raise ValueError(f'the official package has no argument {name!r}')
        setattr(arguments, name, value)
    return arguments


@contextlib.contextmanager
def _shrunk_vit(sizes):
    """Let the official package build a ViT of other sizes than its own."""
    from rfdetr.models.backbone import dinov2

    original = dinov2.get_config, dinov2.size_to_width

    def get_config(*args):
        config = {**original[0](*args), **sizes}
        # The sizes of the ViT with registers hold the outputs of the full ViT.
        config.pop('out_indices', None)
        return config

    if sizes:
        dinov2.get_config = get_config
        width = sizes.get('hidden_size', original[1]['small'])
        dinov2.size_to_width = dict.fromkeys(original[1], width)
    yield
    dinov2.get_config, dinov2.size_to_width = original


def construct(case):
    """Build model, criterion and postprocessing of a case."""
    from rfdetr.models import lwdetr

    arguments = namespace(case)
    with _shrunk_vit(case.get('model', {}).get('vit')):
        model = lwdetr.build_model(arguments)
    return model, *lwdetr.build_criterion_and_postprocessors(arguments)


def build(case):
    """Build a case with weights from the rule."""
    model, criterion, postprocess = construct(case)
    model.load_state_dict(
        {
            name: torch.from_numpy(
                golden_rule.weight(name, tuple(value.shape), case['seed'])
            )
            if value.dtype == torch.float32
            else value
            for name, value in model.state_dict().items()
        }
    )
    return model, criterion, postprocess


def fresh(case):
    """Mean and standard deviation of every parameter of a fresh model."""
    torch.manual_seed(case['seed'])
    model, _, _ = construct(case)
    return {
        name: torch.stack((parameter.mean(), parameter.std(correction=0)))
        for name, parameter in model.named_parameters()
    }


def batch(case):
    """Images of a case as the official model takes them."""
    from rfdetr.utilities.tensors import NestedTensor

    images, mask = golden_rule.images(case['sizes'], case['batch_size'], case['seed'])
    return NestedTensor(torch.from_numpy(images), torch.from_numpy(mask))


def run(case):
    """Do what a case asks for.

    Returns:
        Names of stages to arrays, in the order in which data flows.
    """
    if case.get('lora'):
        stages = adapted(case)
    elif 'sizes' not in case:
        stages = fresh(case)
    elif 'steps' in case:
        stages = train_steps(case)
    elif 'counts' in case:
        stages = train(case)
    else:
        stages = evaluate(case)
    return {
        name: np.asarray(torch.as_tensor(value).detach())
        for name, value in stages.items()
    }


@contextlib.contextmanager
def _selections():
    """Record the arguments and indices of every top-k."""
    calls = []
    topk = torch.topk

    def recording(scores, *args, **kwargs):
        result = topk(scores, *args, **kwargs)
        calls.append((scores.detach(), result[1]))
        return result

    torch.topk = recording
    yield calls
    torch.topk = topk


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def evaluate(case):
    """Every stage from the embeddings to the detections, without gradient."""
    model, _, postprocess = build(case)
    model.eval()
    seen = {}

    def keep(name, module):
        module.register_forward_hook(
            lambda module, inputs, output: seen.__setitem__(name, _first(output))
        )

    def keep_second(name, module):
        module.register_forward_hook(
            lambda module, inputs, output: seen.__setitem__(name, output[1])
        )

    def keep_list(name, module):
        module.register_forward_hook(
            lambda module, inputs, output: seen.update(
                {f'{name}_{index}': value for index, value in enumerate(output)}
            )
        )

    backbone, transformer = model.backbone[0], model.transformer
    vit = backbone.encoder.encoder
    keep('embeddings', vit.embeddings)
    for index, layer in enumerate(vit.encoder.layer):
        keep(f'block_{index}', layer)
    keep_list('backbone', backbone.encoder)
    keep_list('projector', backbone.projector)
    decoder = transformer.decoder
    decoder.register_forward_pre_hook(
        lambda module, inputs, keywords: seen.update(
            references=keywords['refpoints_unsigmoid']
        ),
        with_kwargs=True,
    )
    decoder.ref_point_head.register_forward_hook(
        lambda module, inputs, output: seen.update(
            sine_embed=inputs[0], query_pos=output
        )
    )
    for index, layer in enumerate(decoder.layers):
        keep(f'dec{index}_self_attn', layer.self_attn)
        keep(f'dec{index}_cross_attn', layer.cross_attn)
        keep(f'dec{index}_out', layer)
        if model.use_grouppose_keypoints:
            keep(f'dec{index}_kp_self_attn', layer.kp_inst_self_attn)
            keep(f'dec{index}_kp_cross_attn', layer.kp_cross_attn)
            keep_second(f'dec{index}_kp_out', layer)
    if model.use_grouppose_keypoints:
        keep_list('cross_projector', backbone.cross_attn_projector)
        keep('kp_init_enc', transformer.keypoint_query_initializer_enc)
        keep('kp_init', transformer.keypoint_query_initializer)
    transformer.register_forward_hook(
        lambda module, inputs, output: seen.update(
            {f'hs_{index}': value for index, value in enumerate(output[0])},
            memory_ts=output[2],
            enc_boxes=output[3],
        )
    )

    with torch.no_grad(), _selections() as selections:
        outputs = model(batch(case))
        sizes = torch.tensor(case.get('original_sizes', case['sizes']))
        detections = postprocess(outputs, sizes)
    scores, indices = selections[0]
    seen.update(enc_all_score=scores, enc_topk_index=indices)
    seen['enc_logits'] = outputs['enc_outputs']['pred_logits']
    for index, layer in enumerate(outputs['aux_outputs']):
        seen[f'aux{index}_logits'] = layer['pred_logits']
        seen[f'aux{index}_boxes'] = layer['pred_boxes']
    seen['pred_logits'], seen['pred_boxes'] = (
        outputs['pred_logits'],
        outputs['pred_boxes'],
    )
    if 'pred_masks' in outputs:
        seen['enc_masks'] = outputs['enc_outputs']['pred_masks']
        for index, layer in enumerate(outputs['aux_outputs']):
            seen[f'aux{index}_masks'] = layer['pred_masks']
        seen['pred_masks'] = outputs['pred_masks']
    if 'pred_keypoints' in outputs:
        seen['enc_keypoints'] = outputs['enc_outputs']['pred_keypoints']
        for index, layer in enumerate(outputs['aux_outputs']):
            seen[f'aux{index}_keypoints'] = layer['pred_keypoints']
        seen['pred_keypoints'] = outputs['pred_keypoints']
    for index, image in enumerate(detections):
        for name in ('scores', 'labels', 'boxes', 'masks', 'keypoints'):
            if name in image:
                seen[f'image{index}_{name}'] = image[name]
    return seen


@contextlib.contextmanager
def _draws(names, seed):
    """Let numbers of the rule stand for random ones, in this order."""
    names = list(names)
    rand = torch.rand

    def ruled(*shape, device=None):
        return torch.from_numpy(golden_rule.draw(names.pop(0), shape, seed))

    torch.rand = ruled
    yield
    torch.rand = rand
    assert not names, f'random numbers that were not asked for: {names}'


def targets_of(case, model):
    """Objects of each image as the official criterion takes them."""
    masked = model.segmentation_head is not None
    schema = model.num_keypoints_per_class
    objects = golden_rule.objects(
        case['counts'],
        case.get('labels', len(schema) or model.class_embed.out_features),
        case['seed'],
        case['batch_size'] if masked else None,
    )
    if schema:
        objects = golden_rule.with_keypoints(objects, schema, case['seed'])
    return [
        {name: torch.from_numpy(value) for name, value in image.items()}
        for image in objects
    ]


def train(case):
    """One training step: selection, outputs, matches, losses, gradients."""
    model, criterion, _ = build(case)
    model.train()
    criterion.train()
    masked = model.segmentation_head is not None
    targets = targets_of(case, model)
    with _selections() as selections:
        outputs = model(batch(case))
    # One call for all groups together, or one for each group.
    scores, indices = (
        parts[0] if parts[0].dim() == 3 else torch.stack(parts)
        for parts in zip(*selections, strict=True)
    )
    seen = dict(enc_all_score=scores, enc_topk_index=indices)
    layers = {'enc': outputs['enc_outputs']}
    layers.update(
        {f'aux{index}': layer for index, layer in enumerate(outputs['aux_outputs'])}
    )
    layers['final'] = {
        name: value for name, value in outputs.items() if name.startswith('pred_')
    }
    for name, layer in layers.items():
        seen[f'{name}_logits'] = layer['pred_logits']
        seen[f'{name}_boxes'] = layer['pred_boxes']
        if masked:
            seen[f'{name}_mask_spatial'] = layer['pred_masks']['spatial_features']
            seen[f'{name}_mask_query'] = layer['pred_masks']['query_features']
        if 'pred_keypoints' in layer:
            seen[f'{name}_keypoints'] = layer['pred_keypoints']
    for name, layer in layers.items():
        with _draws([f'matcher/{name}'] if masked else [], case['seed']):
            matches = criterion.matcher(layer, targets, group_detr=criterion.group_detr)
        for image, (queries, objects) in enumerate(matches):
            seen[f'{name}_match_image{image}_query'] = queries
            seen[f'{name}_match_image{image}_target'] = objects
    seen['num_boxes'] = criterion.num_boxes_for_targets(outputs, targets)

    names = ['final', *(name for name in layers if name.startswith('aux')), 'enc']
    draws = [f'matcher/{name}' for name in names]
    draws += [f'loss/{name}/{part}' for name in names for part in ('over', 'rest')]
    with _draws(draws if masked else [], case['seed']):
        losses = criterion(outputs, targets)
    total = 0
    for name, weight in criterion.weight_dict.items():
        seen[f'loss/{name}'] = weight * losses[name]
        total = total + weight * losses[name]
    seen['total'] = total
    total.backward()
    norms = {
        name: parameter.grad.norm()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    seen['grad_total_norm'] = torch.stack(list(norms.values())).norm()
    seen.update({f'grad_norm/{name}': norm for name, norm in norms.items()})
    seen.update(
        {
            f'grad/{name}': parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
    )
    return seen


def train_steps(case):
    """Loss terms (steps,) and the sums of all weights after the steps."""
    import rfdetr

    # By its path: the package around it imports Lightning, which is not needed.
    path = Path(rfdetr.__file__).parent / 'training' / 'param_groups.py'
    spec = importlib.util.spec_from_file_location('param_groups', path)
    param_groups = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(param_groups)
    model, criterion, _ = build(case)
    model.train()
    criterion.train()
    arguments = namespace(case)
    optimizer = torch.optim.AdamW(
        param_groups.get_param_dict(arguments, model),
        lr=arguments.lr,
        weight_decay=arguments.weight_decay,
    )
    terms = {name: [] for name in criterion.weight_dict}
    for step in range(case['steps']):
        each = dict(case, seed=case['seed'] + step)
        losses = criterion(model(batch(each)), targets_of(each, model))
        weighted = {name: criterion.weight_dict[name] * losses[name] for name in terms}
        optimizer.zero_grad()
        sum(weighted.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.clip_max_norm)
        optimizer.step()
        for name, value in weighted.items():
            terms[name].append(float(value.detach()))
    return {f'loss/{name}': torch.tensor(values) for name, values in terms.items()}


def adapted(case):
    """A model with adapters: its file, optimizer groups, outputs and gradients."""
    from rfdetr.models.weights import apply_lora
    from rfdetr.training.param_groups import get_param_dict

    model, criterion, _ = build(case)
    apply_lora(model)
    seen = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if '.lora_' in name:
                change = golden_rule.numbers(name, case['seed'], tuple(parameter.shape))
                parameter += 0.3 * torch.from_numpy(change).float()
    for name, value in model.state_dict().items():
        seen[f'file/{name}'] = value
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    arguments = namespace(case)
    for group in get_param_dict(arguments, model):
        decay = group.get('weight_decay', arguments.weight_decay)
        for parameter in group['params']:
            rates = torch.tensor([group['lr'], decay], dtype=torch.float64)
            seen[f'rates/{names[id(parameter)]}'] = rates
    with torch.no_grad():
        seen['pred_logits'] = model.eval()(batch(case))['pred_logits']
    targets = [
        {name: torch.from_numpy(value) for name, value in image.items()}
        for image in golden_rule.objects(
            case['counts'], model.class_embed.out_features, case['seed']
        )
    ]
    losses = criterion.train()(model.train()(batch(case)), targets)
    weights = criterion.weight_dict
    seen['total'] = sum(weights[name] * losses[name] for name in weights)
    seen['total'].backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            seen[f'grad/{name}'] = parameter.grad
    return seen


def main(request, answer):
    torch.set_num_threads(1)
    with open(request) as file:
        cases = json.load(file)
    np.savez(
        answer,
        **{
            f'{index}/{name}': value
            for index, case in enumerate(cases)
            for name, value in run(case).items()
        },
    )


if __name__ == '__main__':
    main(*sys.argv[1:])

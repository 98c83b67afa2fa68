r"""Study 6: attack pathways through a network (Bluff: Das, Park et al., VIS 2020, arXiv:2009.02608).

==================================================  ================================  ==============================
equation                                            symbol                            function
==================================================  ================================  ==============================
activation score of a neuron                        max over positions                pathways.neurons.scores
its median over images                              -                                 pathways.neurons.median
percentile within a layer                           -                                 pathways.neurons.percentile
neuron groups                                       O \ T, O and T, T \ O, A \ O \ T  pathways.neurons.groups
influence, a kernel slice                           max over positions of K_io * A_i  pathways.influences.slices
influence through neurons between                   max_b min(inf(i, b), inf(b, o))   pathways.influences.strongest
influence between layers                            -                                 pathways.influences.influence
most activated, changed, excited, inhibited         -                                 pathways.neurons.change
neurons clamped to their clean maps (2106.02997)    m a(x) + (1 - m) a(x')            pathways.interventions.clamped
vulnerability (in the code alone)                   -                                 pathways.neurons.vulnerability
logit of a group of classes                         log sum_c exp z_c                 data.imagenet_groups.by_group
targeted PGD (arXiv:1706.06083), L2                 x'                                attacks.projected.pgd
feature visualisation (doi:10.23915/distill.00007)  -                                 pathways.features.features
patches that excite a neuron                        -                                 pathways.features.patches
==================================================  ================================  ==============================
"""

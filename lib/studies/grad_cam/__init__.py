"""Study 0: the Grad-CAM tour (Zhou et al. 2016, arXiv:1512.04150; Selvaraju et al. 2017, arXiv:1610.02391).

=============================================  ==================================  =====================================
equation                                       symbol                              function
=============================================  ==================================  =====================================
Zhou et al., eq. 2                             M_c = sum_k w_k^c A^k               explanations.activation_maps.cam
Selvaraju et al., eqs. 1 and 2                 a_k^c, L_c = ReLU(sum_k a_k^c A^k)  explanations.activation_maps.gradcam
the same, of many layers                       L_c by layer                        explanations.activation_maps.gradcams
counterfactual: -dY_c/dA for dY_c/dA           ReLU(-sum_k a_k^c A^k)              explanations.activation_maps.gradcam
CAM as a special case, sec. 3                  Z sum_k a_k^c A^k = M_c             measure.identity
Grad-CAM++ (arXiv:1710.11063), eq. 19          alpha_ij^kc                         explanations.activation_maps.gradcam
Grad-CAM under attack: PGD (arXiv:1706.06083)  x'                                  attacks.projected.pgd
=============================================  ==================================  =====================================

`sign` chooses between the positive, the counterfactual and the signed map, `method` between Grad-CAM and Grad-CAM++.
"""

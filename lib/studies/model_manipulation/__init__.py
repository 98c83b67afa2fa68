"""Study 4: fooling explanations by manipulating the model (Heo et al., NeurIPS 2019, arXiv:1902.02041).

=========================================  =======================================  =====================================
equation                                   symbol                                   function
=========================================  =======================================  =====================================
objective                                  L_C + lambda L_F                         objective.fool
location fooling                           1/n ||h - m||^2                          fooling.manipulation.location
its mask                                   m                                        fooling.manipulation.frame
top-k fooling                              sum over P_k of |h|                      fooling.manipulation.topk
center-mass fooling                        -||C(h) - C(h_0)||_1                     fooling.manipulation.centre
active fooling                             ||h_c1 - h0_c2||^2 + ||h_c2 - h0_c1||^2  fooling.manipulation.swap
test loss, passive                         t                                        fooling.manipulation.test
test loss, active                          s(c1, c2) - s(c1, c1)                    fooling.manipulation.swapped
fooling success rate, FSR                  t in R_f                                 fooling.manipulation.succeeded
Grad-CAM (arXiv:1610.02391), eqs. 1 and 2  G-CAM                                    explanations.activation_maps.gradcam
SimpleGrad                                 SimpleG_T                                explanations.gradients.layer_gradient
LRP (Bach et al. 2015), eqs. 58 and 60     LRP_T, LRP                               explanations.relevance.lrp
maps as they are scaled                    h                                        explanations.by_name.explain
images with two objects                    D_fool                                   data.mosaics.mosaics
=========================================  =======================================  =====================================

Bach et al. 2015: doi:10.1371/journal.pone.0130140.
"""

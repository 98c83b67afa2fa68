"""Study 1: Grad-CAM attention shift under attack (Chakraborty et al., CVPRW 2022, arXiv:2204.05427).

==========================================  ================================  =====================================
equation                                    symbol                            function
==========================================  ================================  =====================================
FGSM (arXiv:1412.6572), sec. 4              x + eps sign grad_x J             attacks.single_step.fgsm
FGSM's direction, once for all eps          sign grad_x J                     attacks.single_step.fgsm_direction
Grad-CAM (arXiv:1610.02391), eqs. 1 and 2   L_c                               explanations.activation_maps.gradcams
SSIM (doi:10.1109/TIP.2003.819861), eq. 13  SSIM                              measures.similarity.ssim
NISSIM                                      (1 - SSIM_i) / 2                  measures.comparison.nissim
MOD                                         1/N sum_i NISSIM_i                statistics.by_eps
shift and failure within an image, AUC      P(NISSIM_wrong > NISSIM_right)    statistics.told_by_shift
VID, over MOD                               sqrt(1/E sum_e (MOD_e - m)^2)     measures.comparison.vid_model
VID, over an image's NISSIM                 sqrt(1/E sum_e (NISSIM_e - m)^2)  measures.comparison.vid_image
==========================================  ================================  =====================================
"""
